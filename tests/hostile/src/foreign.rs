//! Programs of other people: where they are, how they are started, what they are told.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Program;

/// A port of 127.0.0.1 that is free now.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The folder of this crate.
pub fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the Python environment that `tests/setup.sh test` makes.
///
/// # Errors
/// If it is not there: the set-up was not run.
pub fn python(name: &str) -> Result<PathBuf> {
    let home = std::env::var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|_| std::env::var("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let path = home.join("mesh-tests/python/bin").join(name);
    ensure!(path.exists(), "{} is missing: run tests/setup.sh test", path.display());
    Ok(path)
}

/// A program of a Debian package, or of a directory that is not on every user's path.
///
/// # Errors
/// If it is not installed.
pub fn program(name: &str) -> Result<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .with_context(|| format!("{name} is missing: run tests/setup.sh test"))
}

/// A server of other people, in a folder of its own.
#[derive(Debug)]
pub struct Server {
    /// What it is called in reports.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    _program: Program,
}

/// Every kind of server that `start` knows: foreign HTTP/1.1 parsers.
pub const SERVERS: [&str; 12] = [
    "nginx",
    "apache2",
    "haproxy",
    "lighttpd",
    "node",
    "h11",
    "httptools",
    "aiohttp",
    "tornado",
    "waitress",
    "gunicorn",
    "cheroot",
];

/// Starts a server that answers every request with an empty response whose `x-saw` header names method and target.
///
/// # Errors
/// If it is not installed or does not start.
pub fn start(name: &'static str, dir: &Path) -> Result<Server> {
    let address = free_address()?;
    let port = address.port();
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    let at = dir.display();
    let config = dir.join("config");
    let mut command = match name {
        "nginx" => {
            fs::write(
                &config,
                format!(
                    "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log crit;\nevents {{ worker_connections 512; }}\n\
                 http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
                 keepalive_requests 1000000; client_max_body_size 0; server {{ listen 127.0.0.1:{port} default_server; large_client_header_buffers 8 64k;\n\
                 ignore_invalid_headers off; underscores_in_headers on;\n\
                 location / {{ add_header x-saw \"$request_method $request_uri\" always; return 204; }} }} }}\n"
                ),
            )?;
            let mut command = Command::new(program("nginx")?);
            command.arg("-p").arg(&dir).arg("-c").arg(&config).arg("-e").arg(dir.join("error.log"));
            command
        }
        "apache2" => {
            let modules = "/usr/lib/apache2/modules";
            let loaded: String = ["mpm_event", "authz_core", "headers", "rewrite"]
                .iter()
                .map(|module| format!("LoadModule {module}_module {modules}/mod_{module}.so\n"))
                .collect();
            fs::write(
                &config,
                format!(
                    "ServerRoot {at}\nServerName a\nPidFile {at}/pid\nErrorLog {at}/error.log\nLogLevel crit\nListen 127.0.0.1:{port}\n\
                 {loaded}MaxKeepAliveRequests 0\nLimitRequestFields 200\nLimitRequestFieldSize 65000\nLimitRequestLine 65000\n\
                 AllowEncodedSlashes On\nRewriteEngine On\nRewriteRule .* - [R=204,L]\nHeader always set x-saw \"%{{THE_REQUEST}}e\"\n\
                 DocumentRoot {at}\n"
                ),
            )?;
            let mut command = Command::new(program("apache2")?);
            command.args(["-D", "FOREGROUND", "-f"]).arg(&config);
            command
        }
        "haproxy" => {
            fs::write(
                &config,
                format!(
                    "global\n  nbthread 1\n  tune.bufsize 131072\n  tune.http.maxhdr 256\ndefaults\n  mode http\n  timeout client 10s\n  timeout http-request 10s\n  timeout connect 1s\n  timeout server 10s\n\
                 frontend f\n  bind 127.0.0.1:{port}\n  http-request return status 200 hdr x-saw \"%[method] %[path]\"\n"
                ),
            )?;
            let mut command = Command::new(program("haproxy")?);
            command.args(["-q", "-db", "-f"]).arg(&config);
            command
        }
        "lighttpd" => {
            let root = dir.join("root");
            fs::create_dir_all(&root)?;
            fs::write(root.join("index.html"), "")?;
            fs::write(
                &config,
                format!(
                    "server.document-root = \"{at}/root\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\nserver.max-keep-alive-requests = 60000\n\
                 server.modules = ( \"mod_setenv\", \"mod_rewrite\" )\nurl.rewrite-once = ( \"\" => \"/index.html\" )\nserver.max-request-field-size = 65000\nsetenv.add-response-header = ( \"x-saw\" => \"yes\" )\nserver.errorlog = \"{at}/error.log\"\n"
                ),
            )?;
            let mut command = Command::new(program("lighttpd")?);
            command.arg("-D").arg("-f").arg(&config);
            command
        }
        "node" => {
            let mut command = Command::new(program("node")?);
            command.arg(here().join("backends/node.js")).arg(port.to_string());
            command
        }
        other => {
            let mut command = Command::new(python("python3")?);
            command.arg(here().join("backends/servers.py")).arg(other).arg(port.to_string());
            command
        }
    };
    let log = fs::File::create(dir.join("output"))?;
    command.current_dir(&dir).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    let program = Program::listening(&mut command, address)
        .with_context(|| format!("{name}: {}", fs::read_to_string(dir.join("output")).unwrap_or_default()))?;
    Ok(Server { name, address, _program: program })
}
