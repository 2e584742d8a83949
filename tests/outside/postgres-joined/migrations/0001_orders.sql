create table orders(
    id uuid primary key,
    customer jsonb not null,
    amount bigint not null check (amount > 0)
);
create table rejected(
    id uuid primary key,
    why text not null
);
