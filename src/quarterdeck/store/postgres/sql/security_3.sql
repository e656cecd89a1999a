GRANT SELECT ON dead_letters TO quarterdeck_reader;
ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY engine ON dead_letters TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenants ON dead_letters FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = dead_letters.run));
