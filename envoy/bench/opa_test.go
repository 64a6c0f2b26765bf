package main

import (
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"google.golang.org/protobuf/proto"
)

// TestOPA_AllowsAndDenies evaluates the current policies, whose input may have changed.
func TestOPA_AllowsAndDenies(t *testing.T) {
	o, err := newOPA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	people := newPopulation(smallSet)
	for _, one := range fewPaths {
		judges(t, o, loadOf(people, smallSet).to([]target{one}))
	}
	o.input = func(req *authv3.CheckRequest) (rego.EvalOption, error) {
		input, err := inputOf(req)
		input["key"] = map[string]any{"status": "revoked"}
		return rego.EvalInput(input), err
	}
	judges(t, o, loadOf(people, smallSet).to(onePath).mixed(1, []fault{{reason: "key_revoked", key: unknown.key}}, 0, nil))
}

// TestKeysAsData_AllowsAndDenies gives OPA the checks of the street, one kind after the other.
func TestKeysAsData_AllowsAndDenies(t *testing.T) {
	people := crowd(100)
	tokens, err := mintTokens(people, 10)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data.json")
	if err := writeFile(file, func(w io.Writer) error { return people.writeData(w, tokens) }); err != nil {
		t.Fatal(err)
	}
	o, err := newKeysAsData(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	keys := loadOf(people, 100).to(idPaths).mapped().judgedBy(byVerdict)
	judges(t, o, keys)
	judges(t, o, keys.to(onePath))
	judges(t, o, keys.mixed(0, nil, 1, tokens))
	for _, f := range []fault{unknown, garbage, revoked, narrow} {
		judges(t, o, keys.mixed(1, []fault{f}, 0, nil))
	}
	if err := asked(t, o, keys.mixed(1, []fault{{reason: "none", key: func(dst []byte, p *population, _ *rand.Rand) []byte {
		return append(dst, p.keys.text(0)...)
	}}}, 0, nil)); err == nil {
		t.Error("a denial is expected, and an allow passes for it")
	}
}

// judges checks that an authorizer answers checks of the load as expected.
func judges(t *testing.T, s authv3.AuthorizationServer, l load) {
	t.Helper()
	if err := asked(t, s, l); err != nil {
		t.Error(err)
	}
}

// asked sends some checks of a load, and returns the first judgement of an unexpected answer.
func asked(t *testing.T, s authv3.AuthorizationServer, l load) error {
	t.Helper()
	asker, err := l.asker(seed{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		q, reason := asker.next(time.Now())
		var req authv3.CheckRequest
		if err := proto.Unmarshal(q.wire, &req); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Check(t.Context(), &req)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := proto.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		a.expect(reason, l.judged)
		if err := a.judge(wire); err != nil {
			return err
		}
	}
	return nil
}
