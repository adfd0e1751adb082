//! `runsc-cri image`: images of a running daemon, for people.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::proto::image_service_client::ImageServiceClient;
use crate::proto::images::images_client::ImagesClient;
use crate::proto::images::{ExportRequest, ImportRequest, PullRequest};
use crate::proto::{ImageSpec, ListImagesRequest, RemoveImageRequest};
use crate::service::archive::CHUNK;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images.
    Ls,
    /// Fetch an image from its registry.
    Pull {
        image: String,
        #[arg(long, default_value = "")]
        username: String,
        /// Better given by RUNSC_CRI_PASSWORD: arguments are seen by others.
        #[arg(long, default_value = "", hide_default_value = true)]
        password: String,
    },
    /// Remove images.
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Read a tar archive: of `docker save`, or with an OCI image layout.
    Import {
        /// `-` is the standard input.
        file: PathBuf,
        /// Name for an archive that has none.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Write images to a tar archive that this program, containerd, podman and
    /// docker read.
    Export {
        /// `-` is the standard output.
        file: PathBuf,
        #[arg(required = true)]
        images: Vec<String>,
    },
}

pub fn run(command: ImageCommand, socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(serve(command, socket));
    // Not waiting for a pipe that nobody writes to any more.
    runtime.shutdown_background();
    done
}

async fn serve(command: ImageCommand, socket: &Path) -> Result<()> {
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?
        .connect()
        .await
        .with_context(|| format!("no daemon answers at {}", socket.display()))?;
    let done = match command {
        ImageCommand::Ls => list(channel).await,
        ImageCommand::Pull {
            image,
            username,
            password,
        } => pull(channel, image, username, password).await,
        ImageCommand::Rm { images } => remove(channel, images).await,
        ImageCommand::Import { file, name } => import(channel, &file, name).await,
        ImageCommand::Export { file, images } => export(channel, &file, images).await,
    };
    // A person wants the message alone.
    done.map_err(|err| match err.downcast::<tonic::Status>() {
        Ok(status) => anyhow::anyhow!("{}", status.message()),
        Err(err) => err,
    })
}

/// `12.3 MiB`.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, "B");
    for next in units {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        unit = next;
    }
    match unit {
        "B" => format!("{whole} B"),
        unit => format!("{whole}.{} {unit}", rest * 10 / 1024),
    }
}

async fn list(channel: Channel) -> Result<()> {
    let mut client = ImageServiceClient::new(channel).max_decoding_message_size(256 << 20);
    let answer = client.list_images(ListImagesRequest::default()).await?;
    let mut rows = vec![["IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned()]];
    for image in answer.into_inner().images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12);
        let id: String = id.collect();
        let mut names = image.repo_tags.clone();
        if names.is_empty() {
            names = image.repo_digests.clone();
        }
        for name in names {
            rows.push([name, id.clone(), size(image.size)]);
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    for [name, id, size] in &rows {
        println!("{name:first$}  {id:second$}  {size}");
    }
    Ok(())
}

async fn pull(channel: Channel, image: String, username: String, password: String) -> Result<()> {
    let password = match std::env::var("RUNSC_CRI_PASSWORD") {
        Ok(from_environment) if password.is_empty() => from_environment,
        _ => password,
    };
    let request = PullRequest {
        image,
        username,
        password,
    };
    let mut stream = ImagesClient::new(channel).pull(request).await?.into_inner();
    let mut out = std::io::stderr();
    let terminal = out.is_terminal();
    while let Some(progress) = stream.message().await? {
        if !progress.image_id.is_empty() {
            if terminal {
                writeln!(out, "\r\x1b[K{} fetched", size(progress.done_bytes))?;
            }
            println!("{}", progress.image_id);
            return Ok(());
        }
        if terminal && progress.total_bytes > 0 {
            write!(
                out,
                "\r{}\x1b[K",
                bar(progress.done_bytes, progress.total_bytes)
            )?;
            out.flush()?;
        }
    }
    anyhow::bail!("the daemon has gone")
}

const BAR: u64 = 30;

fn bar(done: u64, total: u64) -> String {
    let done = done.min(total);
    let full = done.saturating_mul(BAR) / total.max(1);
    let mut text = String::from("[");
    for place in 0..BAR {
        text.push(if place < full { '#' } else { ' ' });
    }
    text + &format!("] {} of {}", size(done), size(total))
}

async fn remove(channel: Channel, images: Vec<String>) -> Result<()> {
    let mut client = ImageServiceClient::new(channel);
    for image in images {
        let image = Some(ImageSpec {
            image,
            ..ImageSpec::default()
        });
        client.remove_image(RemoveImageRequest { image }).await?;
    }
    Ok(())
}

const PIPE: &str = "-";

fn standard(fd: BorrowedFd<'_>) -> Result<tokio::fs::File> {
    let own = std::fs::File::from(fd.try_clone_to_owned()?);
    Ok(tokio::fs::File::from_std(own))
}

async fn import(channel: Channel, file: &Path, name: String) -> Result<()> {
    let from: Box<dyn AsyncRead + Send + Unpin> = if file == Path::new(PIPE) {
        if std::io::stdin().is_terminal() {
            anyhow::bail!("the archive is expected in the standard input, not from a terminal");
        }
        Box::new(standard(std::io::stdin().as_fd())?)
    } else {
        let opened = tokio::fs::File::open(file).await;
        Box::new(opened.with_context(|| format!("{} can't be read", file.display()))?)
    };
    let (sender, receiver) = mpsc::channel(4);
    let read = tokio::spawn(chunks(from, name, sender));
    let answer = ImagesClient::new(channel)
        .import(ReceiverStream::new(receiver))
        .await;
    // The first cause: a file that can't be read ends the request too early.
    if read.is_finished()
        && let Ok(Err(err)) = read.await
    {
        return Err(err).with_context(|| format!("{} can't be read", file.display()));
    }
    for image in answer?.into_inner().images {
        println!("{image}");
    }
    Ok(())
}

/// The messages of an import. A daemon that has heard enough says why itself.
async fn chunks(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    name: String,
    sender: mpsc::Sender<ImportRequest>,
) -> Result<()> {
    let mut message = ImportRequest {
        name,
        data: Vec::new(),
    };
    loop {
        if sender.send(message).await.is_err() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(CHUNK);
        let limit = u64::try_from(CHUNK)?;
        if (&mut from).take(limit).read_to_end(&mut data).await? == 0 {
            return Ok(());
        }
        message = ImportRequest {
            data,
            ..ImportRequest::default()
        };
    }
}

async fn export(channel: Channel, file: &Path, images: Vec<String>) -> Result<()> {
    let pipe = file == Path::new(PIPE);
    if pipe && std::io::stdout().is_terminal() {
        anyhow::bail!("an archive is not written to a terminal");
    }
    let request = ExportRequest { images };
    let mut answer = ImagesClient::new(channel)
        .export(request)
        .await?
        .into_inner();
    // An image that is not there does not cost the file.
    let mut next = answer.message().await?;
    let mut to: Box<dyn AsyncWrite + Unpin> = if pipe {
        Box::new(standard(std::io::stdout().as_fd())?)
    } else {
        let made = tokio::fs::File::create(file).await;
        Box::new(made.with_context(|| format!("{} can't be made", file.display()))?)
    };
    while let Some(chunk) = next {
        to.write_all(&chunk.data).await?;
        next = match answer.message().await {
            Ok(next) => next,
            Err(err) => {
                // No half archive that looks like a whole one.
                if !pipe {
                    tokio::fs::remove_file(file).await?;
                }
                return Err(err.into());
            }
        };
    }
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_and_bars() {
        assert_eq!(super::size(1023), "1023 B");
        assert_eq!(super::size(1536), "1.5 KiB");
        assert_eq!(super::size(5 << 30), "5.0 GiB");
        assert!(super::bar(50, 100).starts_with(&format!(
            "[{}{}]",
            "#".repeat(15),
            " ".repeat(15)
        )));
    }
}
