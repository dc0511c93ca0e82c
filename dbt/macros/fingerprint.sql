{#- Content of the rows of a relation aliased `t`, whatever their order, duplicates counted.
    backend/audit.py computes the same from a mart's file. -#}
{% macro fingerprint() -%}
    count(*) || ':' || coalesce(sum(hash(t)), 0)
{%- endmacro %}
