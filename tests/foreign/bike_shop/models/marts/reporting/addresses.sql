{{ config(
    materialized='external',
    location=env_var('SHOP_HOME', '.') ~ '/{{ this.identifier }}.parquet',
    options={'row_group_size': 2048}
) }}

select customer_no, city, dbt_valid_to is null as is_current
from {{ ref('customer_history') }}
order by customer_no, dbt_valid_from
