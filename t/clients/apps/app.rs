// The application of README.md over examples/tokio_postgres.rs, which is taken in as it
// stands: it is the file "recipe.rs" of the crate.

mod recipe {
    include!("recipe.rs");

    pub fn run_main() -> Result<(), String> {
        main()
    }

    pub async fn serve() {
        let nodes: Vec<String> = std::env::args().skip(1).collect();
        let open = nodes.iter().map(|_| None).collect();
        let mut db = Database {
            nodes,
            open,
            fallbacks: 0,
            on_primary: 0,
        };
        let mut turn = 0;
        let mut line = String::new();

        println!("ready");
        while std::io::stdin().read_line(&mut line).unwrap() > 0 {
            let f: Vec<&str> = line.split_whitespace().collect();
            let mut tokens = Tokens::default();
            f[3].split('.').for_each(|token| tokens.keep(token));
            turn += 1;
            let (answer, value) = match f[1] {
                "patch" => {
                    let sql = format!(
                        "UPDATE profiles SET version = {} WHERE id = {} RETURNING version::text",
                        f[4], f[2]
                    );
                    match db.write(&mut tokens, &sql).await {
                        Ok(n) => ("ok", n.to_string()),
                        Err(code) => ("error", code),
                    }
                }
                "get" => {
                    let sql = format!("SELECT version::text FROM profiles WHERE id = {}", f[2]);
                    match db.read(&mut tokens, turn, &sql).await {
                        Ok(n) => ("ok", n.to_string()),
                        Err(ReadError::TokenLost) => ("lost", "-".to_string()),
                        Err(ReadError::Other(code)) => ("error", code),
                    }
                }
                "stats" => ("ok", format!("{}/{}", db.fallbacks, db.on_primary)),
                _ => ("none", "-".to_string()),
            };
            let value = value.split_whitespace().collect::<Vec<_>>().join("_");
            let text = tokens.joined();
            let text = if text.is_empty() { "-" } else { &text };
            println!("{} {} {} {}", f[0], answer, value, text);
            line.clear();
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve() {
    recipe::serve().await
}

fn main() -> Result<(), String> {
    if std::env::var("COUNT").is_ok() {
        return recipe::run_main();
    }
    serve();
    Ok(())
}
