{{ config(enabled=false) }}

select * from {{ ref('turnover') }}
