GRANT SELECT ON outbox, erasures TO quarterdeck_reader;
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE erasures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY engine ON outbox TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON erasures TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY tenants ON outbox FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = outbox.run));
CREATE POLICY tenants ON erasures FOR SELECT TO quarterdeck_reader USING (tenant = ANY ((SELECT visible_tenants())::text[]));
