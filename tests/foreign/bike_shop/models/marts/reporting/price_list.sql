select distinct
    product,
    shelf_mark(product) as mark,
    cast("Unit Price" * (1 + (select rate from rates.vat)) as decimal(10, 2)) as gross
from {{ ref('Sales_Clean') }}
