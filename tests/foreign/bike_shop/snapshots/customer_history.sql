{% snapshot customer_history %}
{{ config(target_schema='history', unique_key='customer_no', strategy='check', check_cols=['city']) }}

select * from {{ ref('named_customers') }}
{% endsnapshot %}
