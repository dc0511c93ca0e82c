select
    sale_no,
    customer_no,
    product,
    pieces,
    {{ house_style.euros('price_cents') }} as "Unit Price",
    sold_at
from {{ source('till', 'sales') }}
