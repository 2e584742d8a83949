//! The whole shop in one process and in memory: `cargo run -p mainstay-shop --example in_memory`.
//!
//! It begins with nothing: count some stock (`PUT /stock/apple`) and pay into an account (`POST /accounts`) first, as
//! each service's `/openapi.json` says. It ends when its standard input does (Ctrl-D), and what was written is gone
//! then. The same three services as separate processes, each with its files, are `mainstay up`.

use std::sync::Arc;

use mainstay::Context;
use mainstay::messaging::memory::Memory as Log;
use mainstay::store::memory::Memory as Store;
use mainstay_shop::service::Wiring;
use mainstay_shop::{inventory, order, payment};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stops) = watch::channel(false);
    let wiring = |log: &Log, listener| {
        let wiring = Wiring::new(Store::new(), log.clone(), listener, Context::system(), stops.clone());
        Wiring { tell: Arc::new(|line| eprintln!("{line}")), ..wiring }
    };
    let [orders, payments, stocks] = [Log::new(1), Log::new(1), Log::new(1)];
    let mut listeners = Vec::new();
    for name in [order::NAME, payment::NAME, inventory::NAME] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{name:>9}  http://{}", listener.local_addr()?);
        listeners.push(listener);
    }
    let [at_order, at_payment, at_inventory] =
        <[_; 3]>::try_from(listeners).map_err(|_| "three listeners")?;
    let order = wiring(&orders, at_order).follow(payment::NAME, payments.clone());
    let order = order.follow(inventory::NAME, stocks.clone());
    let payment =
        wiring(&payments, at_payment).follow(order::NAME, orders).follow(inventory::NAME, stocks.clone());
    let inventory = wiring(&stocks, at_inventory).follow(payment::NAME, payments);
    std::thread::spawn(move || {
        // An input that can't be read has ended too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.send_replace(true);
    });
    tokio::try_join!(order::serve(order), payment::serve(payment), inventory::serve(inventory))?;
    Ok(())
}
