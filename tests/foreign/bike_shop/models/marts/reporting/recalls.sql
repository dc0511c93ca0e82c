{{ config(materialized='external') }}

select product, sold_at as since from {{ ref('Sales_Clean') }} where false
