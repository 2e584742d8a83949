//! The whole shop in one process and in memory: `cargo run -p mainstay-shop --example in_memory`.
//!
//! It begins with nothing: count some stock (`PUT /stock/apple`) and pay into an account (`POST /accounts`) first, as
//! each service's `/openapi.json` says. It ends when its standard input does (Ctrl-D), and what was written is gone
//! then. The same services as separate processes, each with its files, are `mainstay up`.

use std::sync::Arc;

use mainstay::Context;
use mainstay::messaging::memory::Memory as Log;
use mainstay::store::memory::Memory as Store;
use mainstay_shop::service::Wiring;
use mainstay_shop::{inventory, order, payment, processor};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stops) = watch::channel(false);
    let wiring = |log: &Log, listener| {
        let wiring = Wiring::new(Store::new(), log.clone(), listener, Context::system(), stops.clone());
        Wiring { tell: Arc::new(|line| eprintln!("{line}")), ..wiring }
    };
    let [orders, payments, stocks, charges] = [Log::new(1), Log::new(1), Log::new(1), Log::new(1)];
    let mut listeners = Vec::new();
    let mut urls = Vec::new();
    for name in [order::NAME, payment::NAME, inventory::NAME, processor::NAME] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        println!("{name:>9}  {url}");
        urls.push(url);
        listeners.push(listener);
    }
    let [at_order, at_payment, at_inventory, at_processor] =
        <[_; 4]>::try_from(listeners).map_err(|_| "four listeners")?;
    let order = wiring(&orders, at_order).follow(payment::NAME, payments.clone());
    let order = order.follow(inventory::NAME, stocks.clone()).calls(inventory::NAME, &urls[2]);
    let payment =
        wiring(&payments, at_payment).follow(order::NAME, orders).follow(inventory::NAME, stocks.clone());
    let payment = payment.calls(processor::NAME, &urls[3]);
    let inventory = wiring(&stocks, at_inventory).follow(payment::NAME, payments);
    let processor = wiring(&charges, at_processor);
    std::thread::spawn(move || {
        // An input that can't be read has ended too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.send_replace(true);
    });
    tokio::try_join!(
        order::serve(order),
        payment::serve(payment),
        inventory::serve(inventory),
        processor::serve(processor)
    )?;
    Ok(())
}
