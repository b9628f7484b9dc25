//! `image load` and `image list`.

use crate::{
    control,
    failure::{Exit, Failure, Outcome},
    output::{Format, structured, table},
    place::Place,
    up::load,
};
use bytes::Bytes;
use http::Method;
use std::{io::Read, path::PathBuf, time::Duration};

/// What to do with images.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Load OCI archives or `docker save` archives; `-` reads standard input.
    Load {
        /// The archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show what is there.
    List {
        /// Form of the result.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Runs the command.
pub async fn run(place: &Place, command: Command) -> Outcome {
    match command {
        Command::Load { files } => {
            for file in files {
                let mut archive = Vec::new();
                if file.as_os_str() == "-" {
                    std::io::stdin().lock().read_to_end(&mut archive)?;
                } else {
                    archive = std::fs::read(&file)
                        .map_err(|e| Failure::new(Exit::BadInput, format!("{}: {e}", file.display())))?;
                }
                let answer = load(&place.socket(), archive)
                    .await
                    .map_err(|f| Failure { message: format!("{}: {}", file.display(), f.message), ..f })?;
                for image in answer["loaded"].as_array().into_iter().flatten() {
                    for name in image["names"].as_array().into_iter().flatten() {
                        println!("loaded {}", name.as_str().unwrap_or_default());
                    }
                }
            }
        }
        Command::List { output } => {
            let images =
                control::call(&place.socket(), Method::GET, "/images", Bytes::new(), Duration::from_secs(10))
                    .await?;
            if !structured(output, &images)? {
                let rows = images["images"].as_array().into_iter().flatten().flat_map(|image| {
                    let id = image["id"].as_str().unwrap_or_default().chars().take(19).collect::<String>();
                    let size = format!("{:.1} MB", image["sizeBytes"].as_f64().unwrap_or(0.0) / 1e6);
                    let names = image["names"].as_array().cloned().unwrap_or_default();
                    names.into_iter().map(move |name| {
                        vec![name.as_str().unwrap_or_default().to_owned(), id.clone(), size.clone()]
                    })
                });
                table(&["NAME", "ID", "SIZE"], rows);
            }
        }
    }
    Ok(())
}
