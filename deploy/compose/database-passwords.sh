#!/bin/sh
# Run once by the PostgreSQL image, after database-roles.sql: gives each login the password of the installation.
set -eu
for role in sluice_migration webhook_login payments_login enrollment_login scheduler_login; do
    psql --set=ON_ERROR_STOP=1 --set=role="$role" --set=password="$POSTGRES_PASSWORD" --username="$POSTGRES_USER" \
        --dbname="$POSTGRES_DB" <<'SQL'
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
