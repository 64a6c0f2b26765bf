package config

import (
	"strings"
	"testing"
)

// TestEnvironment_UnknownVariable holds that a variable which would be ignored is an error that names the nearest one.
func TestEnvironment_UnknownVariable(t *testing.T) {
	for name, want := range map[string]string{
		"TOLLKEEPER_LISTEN_GRCP":               "TOLLKEEPER_LISTEN_GRPC",
		"TOLLKEEPER_POLICY_PATH":               "TOLLKEEPER_POLICY_PATHS",
		"TOLLKEEPER_DATADIR":                   "TOLLKEEPER_DATA_DIR",
		"TOLLKEEPER_DRY_RUN":                   "TOLLKEEPER_REQUEST_DRY_RUN",
		"TOLLKEEPER_TOKENS_ISSUERS_3_ISUER":    "TOLLKEEPER_TOKENS_ISSUERS_3_ISSUER",
		"TOLLKEEPER_REVOCATION_CLIENTS_0_NAME": "TOLLKEEPER_REVOCATION_CLIENTS_0_ID",
		"TOLLKEEPER_TOKENFILE":                 "TOLLKEEPER_TOKEN_FILE",
		"TOLLKEEPER_LISTEN_GRPC_PORT":          "TOLLKEEPER_LISTEN_GRPC", // a number is no Service's
		"TOLLKEEPER_CONFI":                     "TOLLKEEPER_CONFIG",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "9001")
			_, err := Load("")
			if want := name + ": there is no such variable: the nearest is " + want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if err := CheckEnvironment(); err == nil {
				t.Error("the command line takes it")
			}
			if _, err := Read("x.yaml", nil, map[string]string{name: "9001"}); err == nil || !strings.HasPrefix(err.Error(), name) {
				t.Errorf("read for another machine: %v", err)
			}
		})
	}
}

// TestEnvironment_Kubernetes sets what a pod gets beside Services called tollkeeper, tollkeeper-admin and
// tollkeeper-headless, and what tests set.
func TestEnvironment_Kubernetes(t *testing.T) {
	for _, service := range []string{"TOLLKEEPER", "TOLLKEEPER_ADMIN", "TOLLKEEPER_HEADLESS", "TOLLKEEPER_DATA_DIR"} {
		for name, value := range map[string]string{
			"_SERVICE_HOST": "10.96.0.7", "_SERVICE_PORT": "9001", "_SERVICE_PORT_GRPC": "9001", "_SERVICE_PORT_HTTP_METRICS": "9004",
			"_PORT": "tcp://10.96.0.7:9001", "_PORT_9001_TCP": "tcp://10.96.0.7:9001", "_PORT_9001_TCP_PROTO": "tcp",
			"_PORT_9001_TCP_PORT": "9001", "_PORT_9001_TCP_ADDR": "fd00::7", "_PORT_9001_UDP": "udp://10.96.0.7:9001",
		} {
			t.Setenv(service+name, value)
		}
	}
	t.Setenv("TOLLKEEPER_TEST_ANYTHING", "1")
	t.Setenv("TOLLKEEPER_CONFIG", "x.yaml")
	t.Setenv("TOLLKEEPER_ADMIN", "http://127.0.0.1:9002")
	t.Setenv("TOLLKEEPER_TOKEN_FILE", "token")
	if _, err := Load(""); err != nil {
		t.Error(err)
	}
}

// TestEnvironment_EveryField holds that the list of names is the one that is read.
func TestEnvironment_EveryField(t *testing.T) {
	if len(fieldVariables) < 60 {
		t.Fatalf("%d names found", len(fieldVariables))
	}
	for _, name := range fieldVariables {
		if _, err := Read("", nil, map[string]string{name: "\x00"}); err != nil && strings.Contains(err.Error(), "no such variable") {
			t.Error(err)
		}
	}
	got, err := Read("", nil, map[string]string{"TOLLKEEPER_TOKENS_ISSUERS_0_ISSUER": "https://a", "TOLLKEEPER_TOKENS_ISSUERS_1_ISSUER": "https://b"})
	if err != nil || len(got.Tokens.Issuers) != 2 || got.Tokens.Issuers[1].Issuer != "https://b" {
		t.Errorf("%+v, %v", got.Tokens.Issuers, err)
	}
}

// TestEnvironment_GapInAList: what stands behind a gap would be ignored.
func TestEnvironment_GapInAList(t *testing.T) {
	for _, name := range []string{"TOLLKEEPER_TOKENS_ISSUERS_1_ISSUER", "TOLLKEEPER_REVOCATION_CLIENTS_7_ID"} {
		if _, err := Read("", nil, map[string]string{name: "x"}); err == nil || !strings.HasPrefix(err.Error(), name+": the list has no place") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Read("", nil, map[string]string{"TOLLKEEPER_REVOCATION_CLIENTS_0_ID": "x"})
	if err == nil || !strings.HasPrefix(err.Error(), "TOLLKEEPER_REVOCATION_CLIENTS_0: want an id and a secret_file") {
		t.Errorf("half a client: %v", err)
	}
}

// TestEnvironment_WrongType: the error names the variable and its value, and nothing of the code.
func TestEnvironment_WrongType(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"TOLLKEEPER_POLICY_ALLOW_REMOVED_PLANS": {"yes", `"yes": want true or false`},
		"TOLLKEEPER_POLICY_STRICT_ERRORS":       {"maybe", `"maybe": want true or false`},
		"TOLLKEEPER_POLICY_MEMO":                {"1k", `"1k": want a number`},
		"TOLLKEEPER_TOKENS_ISSUERS_1_DISCOVERY": {"on", `"on": want true or false`},
		"TOLLKEEPER_REQUEST_TIMEOUT":            {"soon", `"soon": want a duration`},
	} {
		all := map[string]string{name: c.value, "TOLLKEEPER_TOKENS_ISSUERS_0_ISSUER": "https://a"}
		if _, err := Read("", nil, all); err == nil || !strings.HasPrefix(err.Error(), name+": "+c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
