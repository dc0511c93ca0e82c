{{ config(materialized='ephemeral') }}

select customer_no, name, city from {{ source('till', 'customers') }} where name is not null
