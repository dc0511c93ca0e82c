{{ config(materialized='external') }}

select mark, count(*) as products from {{ ref('price_list') }} group by mark order by mark
