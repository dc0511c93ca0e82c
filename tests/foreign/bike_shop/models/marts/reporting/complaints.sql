{{ config(materialized='table') }}

select complaint_no, customer_no, said from {{ source('till', 'complaints') }}
