// Read your own writes with Rust and tokio-postgres: write on the primary, read on
// replicas.
//
//   cargo new example && cd example && cp .../tokio_postgres.rs src/main.rs
//   cargo add tokio-postgres && cargo add tokio --features rt,time
//   cargo run -- "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with Rust 1.63 and tokio-postgres 0.7.7.

use std::time::{Duration, Instant};
use tokio_postgres::{types::ToSql, Client, Error, NoTls};

const WAIT: Duration = Duration::from_millis(300); // on one node
const DEADLINE: Duration = Duration::from_secs(2); // for one read, over all nodes

// ---- the tokens of one user: what the next request gets from a cookie ----

#[derive(Default)]
struct Tokens(Vec<String>);

fn parts(token: &str) -> Option<(&str, u64, &str)> {
    let mut field = token.split('-');
    let (tli, lsn, tag) = (field.next()?, field.next()?, field.next()?);
    Some((tli, u64::from_str_radix(lsn, 16).ok()?, tag))
}

impl Tokens {
    // Same timeline and tag: the greater LSN, as a number.  Else both.
    fn keep(&mut self, token: &str) {
        let (tli, lsn, tag) = match parts(token) {
            Some(all) => all,
            None => return,
        };
        for old in self.0.iter_mut() {
            match parts(old) {
                Some((tli2, lsn2, tag2)) if tli == tli2 && tag == tag2 => {
                    if lsn > lsn2 {
                        *old = token.to_string();
                    }
                    return;
                }
                _ => (),
            }
        }
        if self.0.len() == 8 {
            self.0.remove(0); // the oldest
        }
        self.0.push(token.to_string());
    }

    fn joined(&self) -> String {
        self.0.join(".")
    }
}

// ---- the nodes; the first is the primary ----

enum ReadError {
    TokenLost,
    Other(String),
}

struct Database {
    nodes: Vec<String>,
    open: Vec<Option<Client>>,
    fallbacks: usize,
    on_primary: usize,
}

impl Database {
    // The first column of the first row, as text, or the SQLSTATE: "08000" where there is no
    // connection.  Anything else is an error of this program, and its text.
    async fn first(
        &mut self,
        which: usize,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<String>, String> {
        let error = match self.ask(which, sql, params).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let gone = self.open[which].as_ref().map_or(true, |c| c.is_closed());
        Err(match error.code() {
            Some(code) => code.code().to_string(),
            None if gone || error.is_closed() => "08000".to_string(),
            None => error.to_string(),
        })
    }

    async fn ask(
        &mut self,
        which: usize,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<String>, Error> {
        if self.open[which].as_ref().map_or(true, |c| c.is_closed()) {
            self.open[which] = None;
            let (client, connection) = tokio_postgres::connect(&self.nodes[which], NoTls).await?;
            tokio::spawn(connection);
            self.open[which] = Some(client);
        }
        let client = self.open[which].as_ref().unwrap();
        client.query_one(sql, params).await?.try_get(0)
    }

    async fn write(&mut self, tokens: &mut Tokens, sql: &str) -> Result<i32, String> {
        let value = self.first(0, sql, &[]).await?;
        // What the server has reported is known to the Connection, in another task, and
        // maybe only after the reply has been handed to us: so the server is asked, on the
        // same connection.  (Not through a pooler in transaction mode.)
        let token = self.first(0, "SELECT ryw_token()::text", &[]).await?;
        tokens.keep(&token.unwrap_or_default());
        Ok(value.unwrap().parse().unwrap())
    }

    // The query has to end with its conditions: the guard is one more.
    async fn read(
        &mut self,
        tokens: &mut Tokens,
        turn: usize,
        sql: &str,
    ) -> Result<i32, ReadError> {
        let end = Instant::now() + DEADLINE;
        let last = self.nodes.len() - 1;
        let sql = format!("{} AND ryw_require($1::text, $2::bigint)", sql);
        let (mut i, mut again) = (0, false);
        loop {
            // replicas first, each time another one; the primary at last
            let which = if i == last { 0 } else { 1 + (turn + i) % last };
            let left = end.saturating_duration_since(Instant::now());
            let wait = left.min(WAIT).as_millis() as i64;
            let set = tokens.joined();
            let params: [&(dyn ToSql + Sync); 2] = [&set, &wait];
            let asked = self.first(which, &sql, &params);
            let code = match tokio::time::timeout(left, asked).await {
                Err(_) => {
                    self.open[which] = None; // it may still be at work for us
                    return Err(ReadError::Other("no answer in time".to_string()));
                }
                Ok(Ok(value)) => {
                    self.on_primary += (which == 0) as usize;
                    return Ok(value.unwrap().parse().unwrap());
                }
                Ok(Err(code)) => code,
            };
            eprintln!("{} on node {}", code, which);
            let once = code == "RY004" || code == "40001";
            if code == "RY002" {
                let current = self.first(0, "SELECT ryw_current_token()::text", &[]).await;
                tokens.0 = vec![current.map_err(ReadError::Other)?.unwrap()];
                return Err(ReadError::TokenLost);
            } else if code == "RY003" && i < last {
                i = last; // a node astray?  The primary knows
            } else if code == "RY003" {
                tokens.0.clear(); // of another cluster: dropped
            } else if once && !again {
                again = true;
            } else if i == last {
                return Err(ReadError::Other(code));
            } else if once {
                i = last;
            } else if ["RY001", "RY005", "RY006"].contains(&&code[..])
                || code.starts_with("08")
                || code.starts_with("57P")
            {
                i += 1;
            } else {
                return Err(ReadError::Other(code));
            }
            self.fallbacks += 1;
        }
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    let open = nodes.iter().map(|_| None).collect();
    let mut db = Database {
        nodes,
        open,
        fallbacks: 0,
        on_primary: 0,
    };
    let mut tokens = Tokens::default();
    let times = env("COUNT").parse().unwrap_or(1);
    let (mut stale, mut lost) = (0, 0);

    env("TOKEN").split('.').for_each(|token| tokens.keep(token));
    for turn in 0..times {
        let update =
            "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version::text";
        let written = db.write(&mut tokens, update).await?;
        if env("GUARD") == "off" {
            tokens.0.clear();
        }
        let seen = loop {
            let select = "SELECT version::text FROM profiles WHERE id = 1";
            match db.read(&mut tokens, turn, select).await {
                Ok(version) => break version,
                Err(ReadError::Other(code)) => return Err(code),
                Err(ReadError::TokenLost) => {
                    lost += 1;
                    println!("token lost: a write of yours is gone");
                }
            }
        };
        stale += (seen < written) as usize;
    }
    println!(
        "{} written, {} stale, {} lost, {} on the primary, {} fallbacks, token {}",
        times,
        stale,
        lost,
        db.on_primary,
        db.fallbacks,
        tokens.joined()
    );
    Ok(())
}
