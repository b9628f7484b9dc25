//! Who may do what: certificates, tokens, roles, impersonation, streams to kubelets.

use std::sync::Arc;

use base_tls::{ClientAuth, Server as TlsServer};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenReview},
    authorization::v1::SelfSubjectAccessReview,
    core::v1::{ConfigMap, Pod, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{default_account, pod, status, typed};
use crate::harness::{Server, eventually, server_identity};

/// A client with a token instead of a certificate.
async fn with_token(server: &Server, token: &str) -> Client {
    let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": format!("https://{}", server.address), "certificate-authority-data": encode(server.ca.certificate_pem())}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}], "users": [{"name": "t", "user": {"token": token}}]});
    let config = kube::config::Kubeconfig::from_yaml(&config.to_string()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn token_for(client: &Client, account: &str, spec: Value) -> String {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let request: TokenRequest = typed(json!({"metadata": {}, "spec": spec}));
    accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_die_with_what_they_are_bound_to() {
    let server = Server::start().await;
    let client = server.client().await;
    default_account(&client).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let bound = pods.create(&PostParams::default(), &pod("bound")).await.unwrap();
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "bound", "uid": bound.metadata.uid});
    let token =
        token_for(&client, "default", json!({"audiences": ["istio-ca"], "boundObjectRef": reference})).await;
    let review = async |audiences: Value| {
        let reviews: Api<TokenReview> = Api::all(client.clone());
        let review = typed(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}));
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let good = review(json!(["istio-ca"])).await;
    let user = good.user.unwrap();
    assert_eq!(
        (good.authenticated, user.username.as_deref()),
        (Some(true), Some("system:serviceaccount:default:default"))
    );
    assert_eq!(user.extra.unwrap()["authentication.kubernetes.io/pod-name"], ["bound"]);
    assert_eq!(good.audiences, Some(vec!["istio-ca".to_owned()]));
    assert_ne!(review(json!([])).await.authenticated, Some(true), "it is not for the API itself");
    let outside = with_token(&server, &token).await;
    assert_eq!(status(outside.apiserver_version().await.unwrap_err()).code, 401);
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    assert_ne!(review(json!(["istio-ca"])).await.authenticated, Some(true));
    let short = typed(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 10}}));
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let refused = accounts.create_token_request("default", &PostParams::default(), &short).await;
    assert_eq!(status(refused.unwrap_err()).code, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_allow_and_nothing_else_does() {
    let server = Server::start().await;
    let client = server.client().await;
    default_account(&client).await;
    let token = token_for(&client, "default", json!({"audiences": []})).await;
    let robot = with_token(&server, &token).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(robot.clone());
    let refusal = status(maps.list(&ListParams::default()).await.unwrap_err());
    assert_eq!(
        refusal.message,
        "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"default\""
    );
    let roles: Api<Role> = Api::default_namespaced(client.clone());
    let bindings: Api<RoleBinding> = Api::default_namespaced(client.clone());
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    roles.create(&PostParams::default(), &typed(role)).await.unwrap();
    let binding = json!({"metadata": {"name": "reader"}, "roleRef": {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    bindings.create(&PostParams::default(), &typed(binding)).await.unwrap();
    eventually("the binding works", async || maps.list(&ListParams::default()).await.ok()).await;
    let refused = maps.create(&PostParams::default(), &typed(json!({"metadata": {"name": "x"}}))).await;
    assert_eq!(status(refused.unwrap_err()).code, 403);
    let asks: Api<SelfSubjectAccessReview> = Api::all(robot);
    let ask = |verb: &str| {
        typed(
            json!({"metadata": {}, "spec": {"resourceAttributes": {"namespace": "default", "verb": verb, "resource": "configmaps"}}}),
        )
    };
    assert!(asks.create(&PostParams::default(), &ask("list")).await.unwrap().status.unwrap().allowed);
    assert!(!asks.create(&PostParams::default(), &ask("delete")).await.unwrap().status.unwrap().allowed);
    let node = server.client_as("system:node:n1", Some("system:nodes")).await;
    Api::<Pod>::all(node.clone()).list(&ListParams::default()).await.unwrap();
    assert_eq!(status(Api::<Role>::all(node).list(&ListParams::default()).await.unwrap_err()).code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_what_they_do_not_hold() {
    let server = Server::start().await;
    let client = server.client().await;
    let bindings: Api<RoleBinding> = Api::default_namespaced(client.clone());
    let binding = |name: &str, role: &str, user: &str| {
        typed::<RoleBinding>(
            json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]}),
        )
    };
    bindings.create(&PostParams::default(), &binding("ann", "admin", "ann")).await.unwrap();
    let ann = server.client_as("ann", None).await;
    let hers: Api<RoleBinding> = Api::default_namespaced(ann.clone());
    eventually("ann is admin", async || hers.list(&ListParams::default()).await.ok()).await;
    hers.create(&PostParams::default(), &binding("bob", "view", "bob")).await.unwrap();
    let refused = hers.create(&PostParams::default(), &binding("all", "cluster-admin", "bob")).await;
    let refused = status(refused.unwrap_err());
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.contains("is attempting to grant RBAC permissions not currently held"),
        "{}",
        refused.message
    );
    let roles: Api<Role> = Api::default_namespaced(ann);
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    assert_eq!(status(roles.create(&PostParams::default(), &typed(role)).await.unwrap_err()).code, 403);
    let edit = server.client_as("ann", Some("system:masters")).await;
    let text = edit.request_text(http::Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    assert!(text.contains("apiserver_request_total{verb=\"create\",group=\"rbac.authorization.k8s.io\",resource=\"roles\",code=\"403\"} 1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_follows_labels() {
    let server = Server::start().await;
    let client = server.client().await;
    default_account(&client).await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces.patch("default", &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let refused = status(pods.create(&PostParams::default(), &pod("bare")).await.unwrap_err());
    assert!(refused.message.starts_with("pods \"bare\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"), "{}", refused.message);
    let careful = json!({"metadata": {"name": "careful"}, "spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "a:1", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    pods.create(&PostParams::default(), &typed(careful)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_keeps_owners_apart() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let apply = async |manager: &str, data: Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data});
        api.patch("cm", &PatchParams::apply(manager), &Patch::Apply(&object)).await
    };
    apply("one", json!({"a": "1"})).await.unwrap();
    let both = apply("two", json!({"b": "2"})).await.unwrap();
    assert_eq!(both.metadata.managed_fields.unwrap().len(), 2);
    let conflict = status(apply("two", json!({"a": "3", "b": "2"})).await.unwrap_err());
    assert_eq!(
        (conflict.code, &*conflict.message),
        (409, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.a")
    );
    // An update takes the field over from whoever applied it.
    api.patch("cm", &PatchParams::default(), &Patch::Merge(&json!({"data": {"a": "9"}}))).await.unwrap();
    let again = status(apply("one", json!({"a": "1"})).await.unwrap_err());
    assert_eq!(again.code, 409);
    let left = apply("two", json!({})).await.unwrap().data.unwrap();
    assert!(left.contains_key("a") && !left.contains_key("b"));
    let unchanged = api.get("cm").await.unwrap().metadata.resource_version;
    assert_eq!(apply("two", json!({})).await.unwrap().metadata.resource_version, unchanged);
}

/// A kubelet that answers logs with its request line and upgrades everything else to an echo.
async fn kubelet(server: &Server) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = TlsServer::new(&server_identity(&server.ca, &["n1"]), ClientAuth::Required, &[b"http/1.1"]);
    let tls = Arc::new(tls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                let mut stream = tls.accept(stream).await.unwrap();
                assert_eq!(stream.peer().unwrap().organizations, ["system:masters"]);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let line = head.lines().next().unwrap().to_owned();
                if line.contains("/containerLogs/") {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{line}",
                        line.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    return;
                }
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-line: {line}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reach_the_kubelet() {
    let server = Server::start().await;
    let client = server.client().await;
    default_account(&client).await;
    let port = kubelet(&server).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let post = |path: &str, body: &Value| {
        http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap()
    };
    client.request::<Value>(post("/api/v1/nodes", &node)).await.unwrap();
    let mut bound = serde_json::to_value(pod("web")).unwrap();
    bound["spec"]["nodeName"] = json!("n1");
    client.request::<Value>(post("/api/v1/namespaces/default/pods", &bound)).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let log =
        pods.logs("web", &kube::api::LogParams { tail_lines: Some(3), ..Default::default() }).await.unwrap();
    assert_eq!(log, "GET /containerLogs/default/web/app?&tailLines=3 HTTP/1.1".replace("?&", "?"));
    let upgrade = http::Request::post("/api/v1/namespaces/default/pods/web/exec?command=ls&stdout=true")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(kube::client::Body::empty())
        .unwrap();
    let response = client.send(upgrade).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["x-line"], "POST /exec/default/web/app?command=ls&output=1 HTTP/1.1");
    let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"raw bytes\0both ways").await.unwrap();
    let mut echo = [0_u8; 19];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"raw bytes\0both ways");
    let refused = pods
        .logs("web", &kube::api::LogParams { container: Some("other".to_owned()), ..Default::default() })
        .await;
    assert!(status(refused.unwrap_err()).message.contains("container other is not valid for pod web"));
}
