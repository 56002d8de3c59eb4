-- Roles for one PostgreSQL database: run it once, as its administrator, before the first migration. Passwords are given
-- afterwards (\password webhook_login).
--
-- The role sluice_<service> owns the schema <service>. Processes log in as <service>_login and migrations as
-- sluice_migration; both work as the owner, so that no process reaches the tables of another service.

CREATE ROLE sluice_migration LOGIN;

DO $$ BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO sluice_migration', current_database());
END $$;

CREATE ROLE sluice_webhook NOLOGIN;
CREATE ROLE webhook_login LOGIN;
GRANT sluice_webhook TO webhook_login, sluice_migration;
CREATE SCHEMA webhook AUTHORIZATION sluice_webhook;

CREATE ROLE sluice_payments NOLOGIN;
CREATE ROLE payments_login LOGIN;
GRANT sluice_payments TO payments_login, sluice_migration;
CREATE SCHEMA payments AUTHORIZATION sluice_payments;

CREATE ROLE sluice_enrollment NOLOGIN;
CREATE ROLE enrollment_login LOGIN;
GRANT sluice_enrollment TO enrollment_login, sluice_migration;
CREATE SCHEMA enrollment AUTHORIZATION sluice_enrollment;

CREATE ROLE sluice_scheduler NOLOGIN;
CREATE ROLE scheduler_login LOGIN;
GRANT sluice_scheduler TO scheduler_login, sluice_migration;
CREATE SCHEMA scheduler AUTHORIZATION sluice_scheduler;
