use super::*;

fn config() -> Config {
    Config {
        image: "mesh.local/sidecar:1".into(),
        trust_domain: "cluster.local".into(),
        cluster_id: "Kubernetes".into(),
        discovery_address: "meshd.mesh-system.svc:15012".into(),
        log_level: "info".into(),
    }
}

fn ratings() -> Value {
    json!({
        "metadata": {
            "generateName": "ratings-v1-abc12-",
            "labels": {"app": "ratings", "version": "v1", "pod-template-hash": "abc12"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ratings-v1-abc12", "controller": true}],
        },
        "spec": {
            "initContainers": [{"name": "prepare", "image": "x"}],
            "containers": [{
                "name": "ratings", "image": "x", "ports": [{"name": "web", "containerPort": 9080}],
                "livenessProbe": {"httpGet": {"path": "/health", "port": "web"}, "timeoutSeconds": 2},
                "readinessProbe": {"exec": {"command": ["true"]}},
                "startupProbe": {"tcpSocket": {"port": 9080}},
            }],
        },
    })
}

#[test]
fn the_sidecar_comes_before_all_other_init_containers() {
    let pod = injected(&config(), Template::Sidecar, "default", &ratings()).unwrap();
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!((init[0]["name"].as_str(), init[1]["name"].as_str()), (Some("istio-proxy"), Some("prepare")));
    assert_eq!(init[0]["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 4);
    let env = |name: &str| {
        init[0]["env"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e["name"] == name)
            .map(|e| e["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(env("ISTIO_META_WORKLOAD_NAME").as_deref(), Some("ratings-v1"));
    assert_eq!(
        env("ISTIO_META_OWNER").as_deref(),
        Some("kubernetes://apis/apps/v1/namespaces/default/deployments/ratings-v1")
    );
    let labels = &pod["metadata"]["labels"];
    assert_eq!(
        (&labels["security.istio.io/tlsMode"], &labels["service.istio.io/canonical-name"]),
        (&json!("istio"), &json!("ratings"))
    );
    assert_eq!(labels["service.istio.io/canonical-revision"], "v1");
}

#[test]
fn it_passes_pod_security_restricted() {
    let pod = injected(&config(), Template::Sidecar, "default", &ratings()).unwrap();
    let security = &pod["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert!(pod["spec"]["volumes"].as_array().unwrap().iter().all(|volume| volume["hostPath"].is_null()));
}

#[test]
fn probes_go_through_the_sidecar() {
    let pod = injected(&config(), Template::Sidecar, "default", &ratings()).unwrap();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"path": "/app-health/ratings/livez", "port": 15020, "scheme": "HTTP"}, "timeoutSeconds": 2})
    );
    assert_eq!(container["readinessProbe"], json!({"exec": {"command": ["true"]}}));
    assert!(container["startupProbe"]["tcpSocket"].is_null());
    let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap();
    let probers =
        env.iter().find(|e| e["name"] == "ISTIO_KUBE_APP_PROBERS").unwrap()["value"].as_str().unwrap();
    let probers: Value = serde_json::from_str(probers).unwrap();
    assert_eq!(
        probers["/app-health/ratings/livez"],
        json!({"httpGet": {"path": "/health", "port": 9080}, "timeoutSeconds": 2})
    );
    assert_eq!(probers["/app-health/ratings/startupz"]["tcpSocket"]["port"], 9080);
}

#[test]
fn the_patch_makes_the_injected_pod() {
    let mut patched = ratings();
    let Answer::Patch(patch) = pod(&config(), "default", &patched) else { panic!("no patch") };
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, injected(&config(), Template::Sidecar, "default", &ratings()).unwrap());
    assert!(matches!(pod(&config(), "default", &patched), Answer::Allow(_)), "a second time changes nothing");
}

#[test]
fn some_pods_stay_as_they_are() {
    let with = |change: fn(&mut Value)| {
        let mut pod = ratings();
        change(&mut pod);
        pod
    };
    for (namespace, pod) in [
        ("kube-system", ratings()),
        ("default", with(|pod| pod["spec"]["hostNetwork"] = json!(true))),
        ("default", with(|pod| pod["metadata"]["labels"][labels::INJECT] = json!("false"))),
        ("default", with(|pod| pod["metadata"]["annotations"] = json!({annotations::INJECT: "false"}))),
    ] {
        assert!(matches!(decide(namespace, &pod), Decision::Skip(_)), "{namespace} {pod}");
    }
    let both = with(|pod| {
        pod["metadata"]["annotations"] = json!({annotations::INJECT: "false"});
        pod["metadata"]["labels"][labels::INJECT] = json!("true");
    });
    assert_eq!(
        decide("default", &both),
        Decision::Inject(Template::Sidecar),
        "the label beats the annotation"
    );
}

#[test]
fn a_gateway_keeps_what_it_says_and_gets_the_rest() {
    let gateway = json!({
        "metadata": {"generateName": "istio-ingressgateway-", "annotations": {"inject.istio.io/templates": "gateway"}, "labels": {"istio": "ingressgateway"}},
        "spec": {"containers": [{"name": "istio-proxy", "image": "auto", "env": [{"name": "LOG_LEVEL", "value": "debug"}], "ports": [{"containerPort": 8080}]}]},
    });
    let Decision::Inject(template) = decide("mesh-system", &gateway) else { panic!("not injected") };
    let pod = injected(&config(), template, "mesh-system", &gateway).unwrap();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        (container["image"].as_str(), &container["args"]),
        (Some("mesh.local/sidecar:1"), &json!(["proxy", "router"]))
    );
    assert_eq!(container["env"].as_array().unwrap().iter().filter(|e| e["name"] == "LOG_LEVEL").count(), 1);
    assert!(pod["spec"]["initContainers"].is_null());
    assert!(pod["metadata"]["annotations"][annotations::STATUS].is_null(), "a gateway is not intercepted");
}
