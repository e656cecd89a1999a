-- Who reads for some tenants does so as this role and sees their rows alone, whatever the statement says. The role that owns the tables is
-- the engine's: its policies let it see all, and because they are forced there is no way around policies but a superuser's.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'quarterdeck_reader') THEN
        CREATE ROLE quarterdeck_reader NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, 'quarterdeck_reader', 'MEMBER') OR NOT pg_has_role(current_user, 'quarterdeck_reader', 'USAGE') THEN
        GRANT quarterdeck_reader TO CURRENT_USER;
    END IF;
END $$;
REVOKE ALL ON SCHEMA quarterdeck FROM PUBLIC;
GRANT USAGE ON SCHEMA quarterdeck TO quarterdeck_reader;
GRANT SELECT ON runs, contracts, events, payloads, inbox, approvals, idempotency TO quarterdeck_reader;

CREATE FUNCTION visible_tenants() RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('quarterdeck.tenants', true), ''), '{}')::text[]
$$;

ALTER TABLE contracts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE payloads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE inbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE approvals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY engine ON contracts TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON idempotency TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON runs TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON events TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON payloads TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON inbox TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY engine ON approvals TO CURRENT_USER USING (true) WITH CHECK (true);

CREATE POLICY tenants ON contracts FOR SELECT TO quarterdeck_reader USING (tenant = ANY ((SELECT visible_tenants())::text[]));
CREATE POLICY tenants ON idempotency FOR SELECT TO quarterdeck_reader USING (tenant = ANY ((SELECT visible_tenants())::text[]));
CREATE POLICY tenants ON runs FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = id));
CREATE POLICY tenants ON events FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = events.run));
CREATE POLICY tenants ON payloads FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = payloads.run));
CREATE POLICY tenants ON inbox FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = inbox.run));
CREATE POLICY tenants ON approvals FOR SELECT TO quarterdeck_reader USING (EXISTS (SELECT 1 FROM contracts c WHERE c.run = approvals.run));
