{% macro euros(cents) %}cast({{ cents }} / 100 as decimal(10, 2)){% endmacro %}
