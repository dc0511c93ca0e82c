{{ config(materialized='incremental', unique_key='sale_no', alias='Sales') }}

select *, '{{ invocation_id }}' as loaded_by from {{ ref('Sales_Clean') }}
{% if is_incremental() %}
where sold_at > (select max(sold_at) from {{ this }})
{% endif %}
order by sale_no desc
