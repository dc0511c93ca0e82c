-- The personal-finance application's schema, applied by finance_owner in the transaction that seeds it.
--
-- Constant sum: a transaction adds its amount to its account and subtracts it from the same user's external account;
-- a transfer moves its amount from one account to another. Both happen in the database transaction that inserts the
-- row, so the sum of accounts.balance equals the sum of accounts.opening_balance at every committed moment.

GRANT USAGE ON SCHEMA public TO analytics_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO analytics_reader;

CREATE TABLE users (
    user_id    integer PRIMARY KEY,
    email      text NOT NULL UNIQUE,
    full_name  text NOT NULL,
    country    text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    created_at timestamptz NOT NULL,
    note       text
);
COMMENT ON TABLE users IS 'One row per person who signed up.';
COMMENT ON COLUMN users.country IS 'ISO 3166-1 alpha-2 code.';
COMMENT ON COLUMN users.note IS 'Free text typed by the user or by support.';

CREATE TABLE accounts (
    account_id      bigint PRIMARY KEY,
    user_id         integer NOT NULL REFERENCES users,
    kind            text NOT NULL CHECK (kind IN ('checking', 'savings', 'credit', 'cash', 'external')),
    name            text NOT NULL,
    currency        text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    opening_balance numeric(14, 2) NOT NULL,
    balance         numeric(14, 2) NOT NULL,
    opened_on       date NOT NULL,
    closed_on       date CHECK (closed_on >= opened_on),
    CHECK (kind <> 'external' OR (opening_balance = 0 AND closed_on IS NULL))
);
CREATE INDEX accounts_user_id ON accounts (user_id);
CREATE UNIQUE INDEX accounts_one_external_per_user ON accounts (user_id) WHERE kind = 'external';
COMMENT ON TABLE accounts IS
    'One row per account of a user; the account of kind external stands for the world outside the user''s accounts.';
COMMENT ON COLUMN accounts.currency IS 'ISO 4217 code; all accounts of a user have the same.';
COMMENT ON COLUMN accounts.opening_balance IS 'Balance before the first recorded movement.';
COMMENT ON COLUMN accounts.balance IS
    'Opening balance plus all movements; of an external account: minus all transactions of its user.';
COMMENT ON COLUMN accounts.closed_on IS 'No movement is later than this; NULL while the account is open.';

CREATE TABLE categories (
    category_id integer PRIMARY KEY,
    parent_id   integer REFERENCES categories,
    name        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('income', 'expense'))
);
CREATE INDEX categories_parent_id ON categories (parent_id);
COMMENT ON TABLE categories IS 'One row per category; a forest, shared by all users.';
COMMENT ON COLUMN categories.parent_id IS 'The category above; NULL at the top.';

CREATE TABLE merchants (
    merchant_id integer PRIMARY KEY,
    name        text NOT NULL,
    category_id integer NOT NULL REFERENCES categories,
    city        text,
    website     text
);
CREATE INDEX merchants_category_id ON merchants (category_id);
COMMENT ON TABLE merchants IS 'One row per merchant, employer or institution on the other side of transactions.';
COMMENT ON COLUMN merchants.category_id IS 'The category that its transactions usually have.';
COMMENT ON COLUMN merchants.city IS 'NULL for merchants that are only online.';

CREATE TABLE transactions (
    transaction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id     bigint NOT NULL REFERENCES accounts,
    merchant_id    integer REFERENCES merchants,
    category_id    integer NOT NULL REFERENCES categories,
    amount         numeric(12, 2) NOT NULL CHECK (amount <> 0),
    currency       text NOT NULL,
    description    text,
    posted_at      timestamptz NOT NULL
);
CREATE INDEX transactions_account_id_posted_at ON transactions (account_id, posted_at DESC);
CREATE INDEX transactions_category_id ON transactions (category_id);
CREATE INDEX transactions_merchant_id ON transactions (merchant_id);
COMMENT ON TABLE transactions IS 'One row per movement between an account and the outside world.';
COMMENT ON COLUMN transactions.merchant_id IS 'NULL where the other side is not known.';
COMMENT ON COLUMN transactions.amount IS 'As seen from the account: negative when money leaves it.';
COMMENT ON COLUMN transactions.currency IS 'The currency of the account.';

CREATE TABLE transfers (
    transfer_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_account_id bigint NOT NULL REFERENCES accounts,
    to_account_id   bigint NOT NULL REFERENCES accounts,
    amount          numeric(12, 2) NOT NULL CHECK (amount > 0),
    description     text,
    transferred_at  timestamptz NOT NULL,
    CHECK (from_account_id <> to_account_id)
);
CREATE INDEX transfers_from_account_id_transferred_at ON transfers (from_account_id, transferred_at DESC);
CREATE INDEX transfers_to_account_id_transferred_at ON transfers (to_account_id, transferred_at DESC);
COMMENT ON TABLE transfers IS 'One row per movement between two accounts, of one user or of two, in one currency.';

CREATE TABLE budgets (
    budget_id   integer PRIMARY KEY,
    user_id     integer NOT NULL REFERENCES users,
    category_id integer NOT NULL REFERENCES categories,
    month       date NOT NULL CHECK (extract(DAY FROM month) = 1),
    amount      numeric(12, 2) NOT NULL CHECK (amount >= 0),
    UNIQUE (user_id, category_id, month)
);
CREATE INDEX budgets_category_id ON budgets (category_id);
COMMENT ON TABLE budgets IS 'One row per user, category and month in which the user set herself a limit.';
COMMENT ON COLUMN budgets.month IS 'First day of the month.';
