#!/bin/bash
# Roles of the source database. The postgres image runs this once, as the superuser, on an empty data directory;
# the schema follows when finance_owner seeds (deploy/source/schema.sql).
set -eo pipefail

: "${POSTGRES_USER:?the superuser, set by the postgres image}"
: "${POSTGRES_DB:?the source database; set POSTGRES_DB=finance on the container}"

secrets=${SECRETS_DIR:-/run/secrets}
for name in source_owner_password source_reader_password; do
    if [ ! -r "$secrets/$name" ] || [ ! -s "$secrets/$name" ]; then
        echo "10-roles.sh: the secret $secrets/$name is missing, empty or not readable by $(id -un);" \
            "create it with \`make secrets\`, then empty the data directory so that this runs again" >&2
        exit 1
    fi
done

# psql reads the files itself: a password on a command line shows in ps.
OWNER_PASSWORD_FILE="$secrets/source_owner_password" READER_PASSWORD_FILE="$secrets/source_reader_password" \
    psql --no-psqlrc --no-password --quiet --set ON_ERROR_STOP=1 --set database="$POSTGRES_DB" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set owner_password `cat "$OWNER_PASSWORD_FILE"`
\set reader_password `cat "$READER_PASSWORD_FILE"`

-- A failing CREATE ROLE would otherwise put its password into the server's log.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';

BEGIN;

CREATE ROLE finance_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE analytics_reader LOGIN PASSWORD :'reader_password';
ALTER ROLE analytics_reader SET default_transaction_read_only = on;

-- Whoever is not named here gets in nowhere, in this database or the two that every cluster has.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

GRANT CONNECT ON DATABASE :"database" TO finance_owner, analytics_reader;
ALTER SCHEMA public OWNER TO finance_owner;

COMMIT;
SQL
