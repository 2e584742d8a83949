create table customers (
    id blob primary key not null,
    contact text not null
);
