//! Every kubectl of the machine does what people do with it.

use crate::harness::{Kubectl, Server, eventually, kubectls};

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: "web:1"
        env: [{name: A, value: "1"}]
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [color]
            properties:
              color: {type: string, enum: [red, blue]}
              size: {type: integer, default: 3, minimum: 1}
              fixed: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: is fixed}]}
          status: {type: object, properties: {size: {type: integer}}}
"#;

const WIDGET: &str = r#"
apiVersion: test.example.com/v1
kind: Widget
metadata: {name: one}
spec: {color: red, fixed: a}
"#;

/// Runs a script with a server of its own for every kubectl that is here.
async fn with_each(script: impl AsyncFn(&Kubectl<'_>)) {
    let binaries = kubectls();
    if binaries.is_empty() {
        eprintln!("no versioned kubectl (1.30 to 1.33) is installed here: only kube-rs drives the server");
    }
    for binary in binaries {
        let server = Server::start().await;
        drop(server.client().await);
        eprintln!("with {}", binary.display());
        script(&Kubectl { binary, server: &server }).await;
    }
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads() {
    with_each(async |kubectl| {
        contains(&kubectl.ok(&["version"]).await, &["Server Version: v1.33.4+mesh"]);
        contains(
            &kubectl.apply("web.yaml", MANIFEST, &[]).await,
            &["deployment.apps/web created", "service/web created"],
        );
        contains(&kubectl.apply("web.yaml", MANIFEST, &[]).await, &["deployment.apps/web unchanged"]);
        // A strategic merge: the list of containers is merged by name, the variable by its own.
        let changed = MANIFEST.replace("value: \"1\"", "value: \"2\"");
        contains(
            &kubectl.apply("web.yaml", &changed, &[]).await,
            &["deployment.apps/web configured", "service/web unchanged"],
        );
        let json = kubectl.ok(&["get", "deploy", "web", "-o", "json"]).await;
        let deployment: serde_json::Value = serde_json::from_str(&json).unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["value"], "2");
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(deployment["metadata"]["generation"], 2);
        contains(
            &kubectl.ok(&["get", "deploy", "-o", "wide"]).await,
            &["READY", "UP-TO-DATE", "0/2", "web:1", "app=web"],
        );
        contains(
            &kubectl.ok(&["get", "svc", "web", "-o", "yaml"]).await,
            &["clusterIP: 10.96.", "targetPort: 80"],
        );
        contains(&kubectl.ok(&["scale", "deploy/web", "--replicas=5"]).await, &["scaled"]);
        contains(&kubectl.ok(&["label", "deploy", "web", "tier=front"]).await, &["labeled"]);
        contains(&kubectl.ok(&["get", "deploy", "-l", "tier=front", "--no-headers"]).await, &["0/5"]);
        contains(&kubectl.ok(&["describe", "deploy", "web"]).await, &["5 desired", "Image:", "web:1"]);
        contains(&kubectl.ok(&["set", "image", "deploy/web", "web=web:2"]).await, &["image updated"]);
        contains(&kubectl.ok(&["rollout", "restart", "deploy/web"]).await, &["restarted"]);
        contains(&kubectl.ok(&["get", "all", "-A"]).await, &["deployment.apps/web", "service/kubernetes"]);
        let wrong = changed.replace("replicas: 2", "replicas: 2\n  unknownField: 1");
        std::fs::write(kubectl.server.directory.path().join("wrong.yaml"), wrong).unwrap();
        let path = kubectl.server.directory.path().join("wrong.yaml").display().to_string();
        let refusal = kubectl.refused(&["apply", "-f", &path]).await;
        contains(&refusal, &["strict decoding error: unknown field \"spec.unknownField\""]);
        contains(
            &kubectl.ok(&["delete", "deploy/web", "svc/web"]).await,
            &["deployment.apps \"web\" deleted"],
        );
        contains(&kubectl.refused(&["get", "deploy", "web"]).await, &["deployments.apps \"web\" not found"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_small_commands() {
    with_each(async |kubectl| {
        contains(&kubectl.ok(&["api-resources"]).await, &["deployments", "deploy", "apps/v1", "customresourcedefinitions"]);
        contains(&kubectl.ok(&["api-versions"]).await, &["discovery.k8s.io/v1", "rbac.authorization.k8s.io/v1"]);
        contains(&kubectl.ok(&["explain", "pod.spec.containers"]).await, &["imagePullPolicy", "<string>", "-required-"]);
        contains(&kubectl.ok(&["create", "namespace", "blue"]).await, &["created"]);
        contains(&kubectl.ok(&["wait", "ns/blue", "--for=jsonpath={.status.phase}=Active"]).await, &["condition met"]);
        contains(&kubectl.ok(&["create", "configmap", "cm", "--from-literal=a=b"]).await, &["created"]);
        contains(&kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data.a}"]).await, &["b"]);
        contains(&kubectl.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]).await, &["created"]);
        contains(&kubectl.ok(&["get", "secret", "s"]).await, &["Opaque", "1"]);
        contains(&kubectl.ok(&["create", "sa", "robot"]).await, &["created"]);
        assert_eq!(kubectl.ok(&["create", "token", "robot"]).await.split('.').count(), 3);
        contains(&kubectl.ok(&["auth", "can-i", "create", "pods"]).await, &["yes"]);
        contains(&kubectl.refused(&["auth", "can-i", "create", "pods", "--as", "nobody"]).await, &[""]);
        contains(&kubectl.ok(&["patch", "cm", "cm", "--type=json", "-p", r#"[{"op":"add","path":"/data/c","value":"d"}]"#]).await, &["patched"]);
        contains(&kubectl.ok(&["annotate", "cm", "cm", "x=y"]).await, &["annotated"]);
        contains(&kubectl.ok(&["get", "cm", "cm", "-o", "yaml"]).await, &["c: d", "x: \"y\""]);
        contains(&kubectl.refused(&["apply", "-f", "-", "--server-side", "--nothing"]).await, &["unknown flag"]);
        // A List is validated by kubectl itself, with the protobuf form of OpenAPI v2.
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: listed}, data: {a: b}}\n";
        contains(&kubectl.apply("list.yaml", list, &[]).await, &["configmap/listed created"]);
        contains(&kubectl.ok(&["get", "--raw", "/readyz?verbose"]).await, &["readyz check passed"]);
        contains(&kubectl.ok(&["delete", "ns", "blue", "--wait=false"]).await, &["deleted"]);
        contains(&kubectl.ok(&["get", "ns", "blue"]).await, &["Terminating"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources() {
    with_each(async |kubectl| {
        contains(&kubectl.apply("crd.yaml", DEFINITION, &[]).await, &["created"]);
        kubectl
            .ok(&["wait", "crd/widgets.test.example.com", "--for=condition=Established", "--timeout=10s"])
            .await;
        contains(&kubectl.apply("w.yaml", WIDGET, &[]).await, &["widget.test.example.com/one created"]);
        contains(&kubectl.ok(&["get", "wd"]).await, &["SIZE", "one", "3"]);
        let changed = WIDGET.replace("red", "blue");
        contains(&kubectl.apply("w.yaml", &changed, &[]).await, &["configured"]);
        contains(&kubectl.ok(&["explain", "widget.spec"]).await, &["color", "-required-"]);
        contains(&kubectl.ok(&["scale", "widget/one", "--replicas=4"]).await, &["scaled"]);
        contains(&kubectl.ok(&["get", "widget", "one", "-o", "jsonpath={.spec.size}"]).await, &["4"]);
        let refuse = async |patch: &str| {
            kubectl.refused(&["patch", "widget", "one", "--type=merge", "-p", patch]).await
        };
        contains(
            &refuse(r#"{"spec":{"color":"green"}}"#).await,
            &["spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""],
        );
        contains(
            &refuse(r#"{"spec":{"size":0}}"#).await,
            &["spec.size in body should be greater than or equal to 1"],
        );
        contains(&refuse(r#"{"spec":{"fixed":"b"}}"#).await, &["spec.fixed: Invalid value: \"b\": is fixed"]);
        contains(&kubectl.ok(&["delete", "crd", "widgets.test.example.com"]).await, &["deleted"]);
        eventually("the kind is gone", async || {
            let output = kubectl.run(&["get", "--raw", "/apis/test.example.com/v1/widgets"]).await;
            (!output.status.success()).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply() {
    with_each(async |kubectl| {
        let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\ndata: {a: \"1\", b: \"1\"}\n";
        let options = ["--server-side", "--field-manager=one"];
        contains(&kubectl.apply("cm.yaml", config, &options).await, &["configmap/cm serverside-applied"]);
        let other = config.replace("a: \"1\", b: \"1\"", "a: \"2\"");
        std::fs::write(kubectl.server.directory.path().join("cm2.yaml"), &other).unwrap();
        let path = kubectl.server.directory.path().join("cm2.yaml").display().to_string();
        let refusal = kubectl.refused(&["apply", "-f", &path, "--server-side", "--field-manager=two"]).await;
        contains(&refusal, &["Apply failed with 1 conflict: conflict with \"one\"", ".data.a"]);
        kubectl
            .apply("cm2.yaml", &other, &["--server-side", "--field-manager=two", "--force-conflicts"])
            .await;
        assert_eq!(kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data}"]).await, r#"{"a":"2","b":"1"}"#);
        // What its last owner leaves out goes; what another owns stays.
        let less = config.replace("a: \"1\", b: \"1\"", "c: \"3\"");
        kubectl.apply("cm.yaml", &less, &options).await;
        assert_eq!(kubectl.ok(&["get", "cm", "cm", "-o", "jsonpath={.data}"]).await, r#"{"a":"2","c":"3"}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches() {
    use std::io::BufRead as _;
    with_each(async |kubectl| {
        let mut command = kubectl.command(&["get", "configmaps", "-w", "--no-headers"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            std::io::BufReader::new(output).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        let lines = std::sync::Mutex::new((receiver, String::new()));
        let shows = async |name: &str| {
            eventually(name, async || {
                let mut lines = lines.lock().unwrap();
                while let Ok(line) = lines.0.try_recv() {
                    lines.1.push_str(&line);
                    lines.1.push('\n');
                }
                lines.1.contains(name).then_some(())
            })
            .await;
        };
        kubectl.ok(&["create", "configmap", "first"]).await;
        shows("first").await;
        kubectl.ok(&["create", "configmap", "second", "--from-literal=a=b"]).await;
        shows("second").await;
        child.kill().unwrap();
        child.wait().unwrap();
    })
    .await;
}
