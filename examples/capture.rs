//! A kernel is any closure: it may capture tables, structs, `Rc`s, borrowed data, and it knows its
//! row's index. A forked worker has a copy of everything, so nothing is sent to it, pickled, or
//! shared behind a lock.
//!
//! cargo run --release --example capture

mod support;

use std::collections::HashMap;
use std::rc::Rc;

use rowfork::SharedArray;
use support::Options;

/// Something that could not go to another thread, let alone through a pipe.
struct Rates {
    by_currency: HashMap<&'static str, f64>,
}

fn main() -> Result<(), rowfork::Error> {
    Options::from_args("capture", &[]);
    // A row per account: what it holds on each of 250 days, in the account's currency.
    let holdings = SharedArray::from_shape_fn(None, (10_000, 250), |(account, day)| {
        ((account * 7 + day * 3) % 1000) as f64
    })?;

    // What the kernel needs besides its row: a lookup table behind an Rc, and a plain vector by row
    // index.
    let rates = Rc::new(Rates {
        by_currency: HashMap::from([("EUR", 1.0), ("USD", 0.93), ("JPY", 0.0061)]),
    });
    let currencies: Vec<&str> = ["EUR", "USD", "JPY"].into_iter().cycle().take(10_000).collect();

    // Borrowed, not cloned: the closure is never sent anywhere. A missing rate ends the call with
    // an error that names the row, because the kernel may return a Result.
    let mean_in_euro = rowfork::fork().map_rows(&holdings, |row| {
        let currency = currencies[row.index()];
        let rate =
            rates.by_currency.get(currency).ok_or_else(|| format!("no rate for {currency}"))?;
        Ok::<f64, String>(row.mean().unwrap_or(0.0) * rate)
    })?;

    for account in [0, 1, 2] {
        println!(
            "account {account} ({}): {:8.3} EUR on average",
            currencies[account],
            mean_in_euro.view()[account]
        );
    }

    // The same with a currency that nobody has a rate for, from account 6,000 on.
    let outcome = rowfork::fork().map_rows(&holdings, |row| {
        let currency = if row.index() < 6000 { "EUR" } else { "CHF" };
        rates.by_currency.get(currency).copied().ok_or_else(|| format!("no rate for {currency}"))
    });
    println!("and with one missing: {}", outcome.expect_err("CHF has no rate"));
    Ok(())
}
