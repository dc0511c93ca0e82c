{{ config(materialized='table') }}

select product, sum(pieces) as pieces from {{ ref('Sales_Clean') }} group by product
