{#- Replaces dbt-duckdb's `external`, for Parquet only. What differs:

    - an empty mart is a file with zero rows, not one row of NULLs;
    - row groups are larger than `row_group_size` says where there would be very many;
    - the file is always written beside its target and renamed over it: a hard link to an earlier snapshot's file is
      replaced, never written through;
    - what the mart held before it became a file, and the checksum of that file, are noted in `_build.written`, for the
      audit to compare;
    - without a directory to write Parquet to, marts are tables in the DuckDB file itself: phase 0. -#}
{% materialization external, adapter='duckdb', supported_languages=['sql'] %}
    {% if marts_are_tables() %}
        {{ return(materialization_table_duckdb()) }}
    {% endif %}
    {%- set location = render(config.get('location', default=external_location(this, config))) -%}
    {%- set write_options = render_write_options(config) -%}
    {%- set view = this.incorporate(type='view') -%}
    {%- set rows = make_intermediate_relation(this.incorporate(type='table')) -%}
    {%- set existing = load_cached_relation(this) -%}

    {% do drop_relation_if_exists(load_cached_relation(rows)) %}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {# A table of its own, because only a table enforces the contract's constraints. #}
    {% call statement('rows') %}
        {{ create_table_as(False, rows, compiled_code) }}
    {% endcall %}
    {% do write_options.update({'row_group_size': row_group_size(write_options, rows)}) %}
    {% set options = adapter.external_write_options(location, write_options) %}
    {% call statement('write_file') %}
        copy (select * from {{ rows }}) to '{{ adapter.escape_sql_string(location) }}' ({{ options }}, use_tmp_file true)
    {% endcall %}
    {% do note_written(this, rows, location) %}

    {% if existing is not none and not existing.is_view %}
        {% do drop_relation_if_exists(existing) %}
    {% endif %}
    {% call statement('main') %}
        create or replace view {{ view }} as select * from read_parquet('{{ adapter.escape_sql_string(location) }}')
    {% endcall %}
    {% do adapter.drop_relation(rows) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do persist_docs(view, model) %}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [view]}) }}
{% endmaterialization %}


{#- A new directory for each build, which dbt-duckdb would take from the profile: another profile is another project to
    dbt, which would parse it anew. -#}
{% macro external_location(relation, config) %}
    {{- env_var('MART_BUILD_DIR') }}/{{ relation.identifier }}.parquet
{%- endmacro %}


{#- A partial build reads the marts that it does not build from the files that its parent left. -#}
{% macro register_linked_marts() %}
    {% if execute and not marts_are_tables() %}
        {% do register_upstream_external_models() %}
    {% endif %}
{% endmacro %}


{#- Of each row group a query reads what the footer says, but a user's reads few of them: deploy/pipeline/adopted/export.py
    does the same. -#}
{% macro row_group_size(options, rows) %}
    {% set count = run_query("select count(*) from " ~ rows)[0][0] | int %}
    {% set most = 2500 if 'user_id' in model.columns else 100 %}
    {% set at_least = (count / most / 2048) | round(0, 'ceil') | int * 2048 %}
    {{ return([options.get('row_group_size', 122880) | int, at_least] | max) }}
{% endmacro %}


{#- `_build.written` has one row per mart that this build file wrote. -#}
{% macro prepare_written() %}
    {% if execute and not marts_are_tables() %}
        create schema if not exists _build;
        create table if not exists _build.written (mart varchar, row_count bigint, fingerprint varchar, sha256 varchar)
    {% endif %}
{% endmacro %}


{#- Hashes depend on types: rows are hashed in those that they have in the file, as the audit hashes them there. -#}
{% macro note_written(mart, rows, location) %}
    {% set file = adapter.escape_sql_string(location) %}
    {% set kept = run_query(
        "select string_agg(format('cast({0} as {1}) as {0}', '\"' || replace(column_name, '\"', '\"\"') || '\"', column_type), ', ')"
        ~ " from (describe select * from read_parquet('" ~ file ~ "'))"
    ) %}
    {% call statement('forget_written') %}
        delete from _build.written where mart = '{{ adapter.escape_sql_string(mart.identifier) }}'
    {% endcall %}
    {% call statement('note_written') %}
        insert into _build.written
        select
            '{{ adapter.escape_sql_string(mart.identifier) }}', count(*), {{ fingerprint() }},
            file_sha256('{{ file }}')
        from (select {{ kept[0][0] }} from {{ rows }}) as t
    {% endcall %}
{% endmacro %}
