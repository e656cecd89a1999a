-- The audit log belongs to no tenant: who reads for some tenants sees nothing of it, and nobody changes or removes a row of it.
REVOKE ALL ON audit FROM PUBLIC;
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'rows of the audit log are neither changed nor removed';
END $$;
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
