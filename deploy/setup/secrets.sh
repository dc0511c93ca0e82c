# Step secrets: each secret is a file of its own, made once, with no default; and two with nothing in them to begin with:
# jwks, for others' public keys, and dbt_env, for the variables of a dbt project. Sourced by deploy/setup.sh.
# shellcheck shell=bash

readonly SECRETS=(postgres_password source_owner_password source_reader_password dagster_db_password jwt_secret)

set_up_secrets() {
    local directory=${SECRETS_HOST_DIR:-secrets} name
    # The directory keeps others out; a file is mounted by itself and has to be readable by its container's user.
    install -d -m 0700 "$directory"
    for name in "${SECRETS[@]}" jwks dbt_env; do
        if [[ ! -s $directory/$name ]]; then
            if [[ $name == jwks ]]; then
                echo '{"keys": []}' >"$directory/$name.new"
            elif [[ $name == dbt_env ]]; then
                echo "# NAME=value, a line each: what the profile of a dbt project of your own reads" >"$directory/$name.new"
            else
                head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' >"$directory/$name.new"
            fi
            chmod 0444 "$directory/$name.new"
            [[ $name != dbt_env ]] || chmod u+w "$directory/$name.new"
            mv "$directory/$name.new" "$directory/$name"
            say "made the secret $directory/$name"
        fi
    done
}
