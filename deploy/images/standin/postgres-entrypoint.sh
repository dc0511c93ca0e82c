#!/usr/bin/env bash
# Starts PostgreSQL as the official image does, for what this stack uses of it: POSTGRES_USER, POSTGRES_PASSWORD,
# POSTGRES_DB (each also as *_FILE), POSTGRES_INITDB_ARGS, PGDATA and /docker-entrypoint-initdb.d.
set -eo pipefail # no -u: the scripts it sources are not ours

die() {
    echo "docker-entrypoint.sh: $*" >&2
    exit 1
}

# Exports variable $1 from itself, from the file that $1_FILE names, or else from the default $2.
read_setting() {
    local name=$1 default=${2:-} file_name=$1_FILE
    local value=${!name:-} file=${!file_name:-}
    if [[ $value && $file ]]; then
        die "both $name and $file_name are set; set one of them"
    fi
    if [[ $file ]]; then
        value=$(<"$file") || die "$file_name=$file cannot be read by uid $(id -u); check that it is mounted and its mode"
    fi
    export "$name=${value:-$default}"
    unset "$file_name"
}

make_directories() {
    mkdir -p "$PGDATA" /var/run/postgresql
    # Both fail for a directory of someone else's, and it may be good enough as it is: initdb and postgres judge.
    chmod 700 "$PGDATA" 2>/dev/null || true
    chmod 3777 /var/run/postgresql 2>/dev/null || true
}

hand_over_to_postgres_user() {
    make_directories
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres:postgres {} +
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
}

create_cluster() {
    local passwd_dir
    passwd_dir=$(mktemp -d)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$passwd_dir/password"
    (
        if ! getent passwd "$(id -u)" >/dev/null; then
            printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"$passwd_dir/passwd"
            printf 'postgres:x:%s:\n' "$(id -g)" >"$passwd_dir/group"
            export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=$passwd_dir/passwd NSS_WRAPPER_GROUP=$passwd_dir/group
        fi
        # eval, since POSTGRES_INITDB_ARGS is a command line: its quotes count.
        eval 'initdb --username="$POSTGRES_USER" --pwfile="$passwd_dir/password"' "${POSTGRES_INITDB_ARGS:-}"
    )
    rm -rf "$passwd_dir"
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
}

run_sql() {
    psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" --dbname "$1" "${@:2}"
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh)
                echo "docker-entrypoint.sh: running $script"
                # shellcheck disable=SC1090 # whatever is mounted there
                if [[ -x $script ]]; then "$script"; else . "$script"; fi
                ;;
            *.sql)
                echo "docker-entrypoint.sh: running $script"
                run_sql "$POSTGRES_DB" <"$script"
                ;;
            *.sql.gz)
                echo "docker-entrypoint.sh: running $script"
                gunzip -c "$script" | run_sql "$POSTGRES_DB"
                ;;
            /docker-entrypoint-initdb.d/\*) ;;
            *) echo "docker-entrypoint.sh: ignoring $script" ;;
        esac
    done
}

initialise() {
    read_setting POSTGRES_PASSWORD
    read_setting POSTGRES_USER postgres
    read_setting POSTGRES_DB "$POSTGRES_USER"
    read_setting POSTGRES_INITDB_ARGS
    if [[ ! $POSTGRES_PASSWORD ]]; then
        die "the data directory $PGDATA is empty and there is no password for $POSTGRES_USER:" \
            "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
    fi
    create_cluster
    # The socket only: nobody can connect from outside before the scripts are through.
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    if [[ $POSTGRES_DB != postgres ]]; then
        run_sql postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
    run_init_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset POSTGRES_PASSWORD
}

if [[ ${1:-} == -* ]]; then
    set -- postgres "$@"
fi
if [[ ${1:-} == postgres ]]; then
    if [[ $(id -u) == 0 ]]; then
        hand_over_to_postgres_user "$@"
    fi
    make_directories
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        initialise
    fi
fi
exec "$@"
