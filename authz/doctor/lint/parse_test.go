package lint_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// A file need not say what it is: its content shows that.
func TestParse_FindsOutWhatAFileIs(t *testing.T) {
	const mesh = "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b.svc, port: 1}}]"
	const policy = "apiVersion: gateway.envoyproxy.io/v1alpha1, kind: SecurityPolicy, metadata: {name: p, namespace: n}"
	for name, c := range map[string]struct {
		text  string
		about lint.Subject
		want  []string
	}{
		"nothing":               {"# only a comment\n", "", nil},
		"something else":        {"hello: world", "", nil},
		"a list":                {"[1, 2]", "", nil},
		"a text":                {"hello", "", nil},
		"bootstrap as JSON":     {`{"static_resources": {}}`, "", []string{"Envoy configuration"}},
		"bootstrap in camel":    {`{"staticResources": {}}`, "", []string{"Envoy configuration"}},
		"said to be Envoy's":    {"node: {id: a}", "envoy", []string{"Envoy configuration"}},
		"dump":                  {`configs: [{"@type": type.googleapis.com/envoy.admin.v3.ClustersConfigDump}]`, "", []string{"configuration dump of Envoy"}},
		"server_info":           {`{"version": "ab/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", "command_line_options": {}}`, "", []string{"Envoy 1.40.0"}},
		"mesh":                  {mesh, "", []string{"Istio mesh configuration"}},
		"mesh in Helm values":   {"meshConfig: {" + mesh + "}", "", []string{"Istio mesh configuration"}},
		"mesh in an operator":   {"{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {meshConfig: {" + mesh + "}}}", "", []string{"Istio mesh configuration"}},
		"mesh in a ConfigMap":   {"{apiVersion: v1, kind: ConfigMap, data: {mesh: \"" + mesh + "\"}}", "", []string{"Istio mesh configuration"}},
		"said to be Istio's":    {"accessLogFile: /dev/stdout", "istio", []string{"Istio mesh configuration"}},
		"our own":               {"listen: {grpc: \"127.0.0.1:1\"}", "", []string{"Tollkeeper configuration"}},
		"said to be our own":    {"lisen: {}", "config", []string{"Tollkeeper configuration"}},
		"objects in a List":     {"{apiVersion: v1, kind: List, items: [{" + policy + "}, {apiVersion: v1, kind: Secret}]}", "", []string{"SecurityPolicy n/p"}},
		"several documents":     {"{" + policy + "}\n---\n---\n" + mesh, "", []string{"Istio mesh configuration", "SecurityPolicy n/p"}},
		"environment of pods":   {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: t, namespace: n}, spec: {template: {spec: {containers: [{env: [{name: TOLLKEEPER_STORE, value: bolt}]}]}}}}", "", []string{"environment of Tollkeeper in Deployment n/t"}},
		"egctl, to xds":         {`xds: {a/b: {configs: [{"@type": type.googleapis.com/envoy.admin.v3.BootstrapConfigDump}]}}`, "", []string{"Envoy of gateway a/b"}},
		"egctl, to gateway-api": {"gatewayClass: {kind: GatewayClass, metadata: {name: eg}}\nsecurityPolicies: [{" + policy + "}]", "", []string{"SecurityPolicy n/p"}},
	} {
		f := lint.Parse("x", []byte(c.text), c.about)
		r, err := lint.Run([]*lint.File{f}, lint.Options{})
		if err != nil || len(r.Files) != 1 || !slices.Equal(r.Files[0].Is, append([]string{}, c.want...)) {
			t.Errorf("%s: %v, %+v", name, err, r.Files)
		}
		if f.Known() != (len(c.want) > 0) {
			t.Errorf("%s: known is %v", name, f.Known())
		}
	}
}

// The bootstrap of a running Envoy is judged as well, but each part of it only once.
func TestParse_StaticPartsOfADump(t *testing.T) {
	envoy := strings.ReplaceAll(read(t, "testdata/base/envoy.yaml"), "failure_mode_allow: false", "failure_mode_allow: true")
	bootstrap := "configs:\n- \"@type\": type.googleapis.com/envoy.admin.v3.BootstrapConfigDump\n  bootstrap:\n" + indent(envoy, "    ")
	sections := "- \"@type\": type.googleapis.com/envoy.admin.v3.ListenersConfigDump\n" +
		"  static_listeners:\n" + listed(envoy, "  - name: edge\n", "  clusters:\n", "listener") +
		"- \"@type\": type.googleapis.com/envoy.admin.v3.ClustersConfigDump\n" +
		"  static_clusters:\n" + listed(envoy, "  - name: tollkeeper\n", "  - name: upstream\n", "cluster")
	for name, text := range map[string]string{"bootstrap only": bootstrap, "all sections": bootstrap + sections} {
		r, err := lint.Run([]*lint.File{lint.Parse("x", []byte(text), "")}, lint.Options{})
		if err != nil || len(r.Findings) != 1 || r.Findings[0].Rule != "TK101" {
			t.Errorf("%s: %v, %+v", name, err, r.Findings)
		}
	}
}

// listed turns an item of a list into an item of a section of a dump.
func listed(text, from, to, key string) string {
	_, text, _ = strings.Cut(text, from)
	text, _, _ = strings.Cut(text, to)
	first := strings.TrimPrefix(strings.TrimPrefix(from, "  - "), "  ")
	return "  - " + key + ":\n      " + first + indent(text, "  ")
}

func indent(text, by string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(by + line)
	}
	return out.String()
}

// Text from a file cannot steer the terminal, and findings that differ only by line are written once.
func TestReport_TextIsCleanAndShort(t *testing.T) {
	text := strings.ReplaceAll(read(t, "testdata/base/envoy.yaml"), "- name: edge", `- name: "ed\u001bge"`)
	text = strings.Replace(text, "    filter_chains:\n    - filters:\n", "    filter_chains:\n    - filters: &chain\n", 1)
	text = strings.Replace(text, "  clusters:\n", "    - filters: *chain\n  clusters:\n", 1)
	text = strings.Replace(text, "encode_raw_headers: true", "encode_raw_headers: false", 1)
	r, err := lint.Run([]*lint.File{lint.Parse("x", []byte(text), "")}, lint.Options{})
	if err != nil || len(r.Findings) != 2 {
		t.Fatalf("%v, %+v", err, r.Findings)
	}
	var out strings.Builder
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsRune(out.String(), 0x1b) || !strings.Contains(out.String(), " and 1 more place, ") || strings.Count(out.String(), "TK111") != 1 {
		t.Error(out.String())
	}
}

func TestRun_Options(t *testing.T) {
	f := lint.Parse("x", []byte(read(t, "testdata/base/envoy.yaml")), "")
	for _, o := range []lint.Options{{Ignore: []string{"TK999"}}, {EnvoyVersion: "latest"}, {EnvoyVersion: "1"}} {
		if _, err := lint.Run([]*lint.File{f}, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if r, err := lint.Run([]*lint.File{f}, lint.Options{EnvoyVersion: "1.39", Ignore: []string{"TK101"}}); err != nil || r.Worst() != lint.Warning {
		t.Errorf("%v, %+v", err, r.Findings)
	}
	if (&lint.Report{}).Worst() != "" {
		t.Error("an empty report has a severity")
	}
}
