{#- Copies every table of the source `finance` into schema `landed` of the build file, in one transaction.

    DuckDB keeps one PostgreSQL transaction (REPEATABLE READ) per transaction of its own, so all tables are read as
    they were at one moment, and marts built from them agree with each other.

    `landed._landing` has one row per table. A file that has it is left alone, unless `--vars 'land: true'` or marts
    are tables (phase 0), where the file outlives the run. -#}
{% macro land_sources() %}
    {% if not execute or (has_landed() and not var('land', false) and not marts_are_tables()) %}
        {{ return('') }}
    {% endif %}
    {% set source_schema = 'public' if target.name == 'postgres' else 'main' %}
    {% set tables = graph.sources.values() | selectattr('source_name', 'equalto', 'finance') | map(attribute='name') | sort %}

    {# The only statement that may begin: those that follow stay in its transaction until the commit. #}
    {% call statement('begin_landing', auto_begin=true) %}
        drop schema if exists landed cascade
    {% endcall %}
    {% do run_query('create schema landed') %}
    {% do run_query(
        'create table landed._landing '
        ~ '(table_name varchar, row_count bigint, fingerprint varchar, landed_at timestamptz)'
    ) %}
    {% for table in tables %}
        {% set landed = 'landed.' ~ adapter.quote(table) %}
        {% do run_query(
            'create table ' ~ landed ~ ' as select * from source_db.' ~ source_schema ~ '.' ~ adapter.quote(table)
        ) %}
        {% do run_query(
            'insert into landed._landing '
            ~ "select '" ~ table ~ "', count(*), " ~ fingerprint() ~ ', now() from ' ~ landed ~ ' as t'
        ) %}
    {% endfor %}
    {% do adapter.commit() %}
    {% do log('Landed ' ~ tables | length ~ ' source tables in one transaction', info=true) %}
{% endmacro %}


{#- Lands when something selected reads the source: a build of aggregates alone needs no source at all. -#}
{% macro land_sources_for_run() %}
    {% if execute and flags.WHICH in ('build', 'run') and selection_reads_source() %}
        {% do land_sources() %}
    {% endif %}
{% endmacro %}


{% macro selection_reads_source() %}
    {% for selected in selected_resources if selected in graph.nodes %}
        {% for parent in graph.nodes[selected].depends_on.nodes %}
            {% if parent.startswith('source.') or graph.nodes[parent].config.materialized == 'ephemeral' %}
                {{ return(true) }}
            {% endif %}
        {% endfor %}
    {% endfor %}
    {{ return(false) }}
{% endmacro %}


{% macro has_landed() %}
    {% set found = run_query(
        "select 1 from duckdb_tables() where database_name = current_database() "
        ~ "and schema_name = 'landed' and table_name = '_landing'"
    ) %}
    {{ return(found | length > 0) }}
{% endmacro %}


{% macro marts_are_tables() %}
    {{ return(env_var('MART_BUILD_DIR', '') == '') }}
{% endmacro %}


{#- Phase 0 builds in the file that the backend reads: what was landed must not stay in it. -#}
{% macro drop_landed_from_shared_file() %}
    {% if execute and marts_are_tables() %}
        drop schema if exists landed cascade
    {% endif %}
{% endmacro %}


{#- Phase 0, after phase 1: the file will no longer be what the snapshot was that it was written from
    (backend/scripts/bootstrap_duckdb.py). -#}
{% macro forget_snapshot() %}
    {% if execute and marts_are_tables() %}
        drop schema if exists _snapshot cascade
    {% endif %}
{% endmacro %}
