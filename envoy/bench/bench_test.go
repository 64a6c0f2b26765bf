package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

func TestAnswer_Judge(t *testing.T) {
	for name, tc := range map[string]struct {
		resp *authv3.CheckResponse
		want string
	}{
		"allow":  {allow(), ""},
		"empty":  {&authv3.CheckResponse{}, ""},
		"denied": {deny("key_unknown"), "403 key_unknown"},
	} {
		wire, err := proto.Marshal(tc.resp)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(answer).judge(wire); err == nil != (tc.want == "") || err != nil && err.Error() != tc.want {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if new(answer).judge([]byte{0xff}) == nil {
		t.Error("garbage counts as an allow")
	}
	for reason, tc := range map[string]struct {
		resp *authv3.CheckResponse
		want string
	}{
		"key_unknown":   {deny("key_unknown"), ""},
		"key_malformed": {deny("key_unknown"), "403 key_unknown"},
		"key_revoked":   {allow(), "allowed"},
	} {
		wire, err := proto.Marshal(tc.resp)
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		a.expect(reason, byReason)
		if err := a.judge(wire); err == nil != (tc.want == "") || err != nil && err.Error() != tc.want {
			t.Errorf("%s is expected: %v, want %q", reason, err, tc.want)
		}
	}
}

func TestHistogram_Quantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var a, b histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(1 << rnd.Uint64N(40))
		d += time.Duration(rnd.Int64N(int64(d)))
		all = append(all, d)
		if i%2 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .9, .99, .999, 1} {
		want := all[max(0, int(q*float64(len(all)))-1)]
		got := a.quantile(q)
		if diff := float64(got-want) / float64(want); diff < -.01 || diff > .01 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if new(histogram).quantile(.5) != 0 {
		t.Error("the median of no durations is not 0")
	}
	a.add(-1)
	a.add(1<<63 - 1) // the longest duration does not panic
}

// TestDrive_CountsDenials counts denials apart, and gives up when there are many or something breaks.
func TestDrive_CountsDenials(t *testing.T) {
	s := span{warmUp: time.Millisecond, measured: 50 * time.Millisecond}
	drives := func(every int, err error) (*measurement, error) {
		n := 0
		return drive(t.Context(), s, []call{func(context.Context, time.Time) error {
			if n++; n%every == 0 {
				return err
			}
			return nil
		}}, func() error { return nil })
	}
	got, err := drives(150, denial("403 x"))
	if err != nil || got.calls == 0 || got.denied == 0 || got.denial != "403 x" || got.took < s.measured {
		t.Errorf("a few denials: %v", err)
	}
	if _, err := drives(2, denial("403 x")); !errors.Is(err, denial("403 x")) {
		t.Errorf("many denials: %v", err)
	}
	broken := errors.New("broken")
	if _, err := drives(2, broken); !errors.Is(err, broken) {
		t.Errorf("an error: %v", err)
	}
}

func TestProc_Parses(t *testing.T) {
	d, err := parseStat([]byte("7 (a) b) S 1 7 7 0 -1 4194304 108 0 0 0 150 25 0 0 20 0 1 0 377594 2998272 448"))
	if err != nil || d != 1750*time.Millisecond {
		t.Errorf("stat: %v, %v", d, err)
	}
	d, err = parseSchedstat([]byte("2021775597 221200 9\n"))
	if err != nil || d != 2021775597 {
		t.Errorf("schedstat: %v, %v", d, err)
	}
	if _, err := parseStat([]byte("nonsense")); err == nil {
		t.Error("nonsense was parsed as a stat file")
	}
	status := []byte("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    1234 kB\n")
	if v, err := field(status, "VmRSS"); err != nil || v != "1234 kB" {
		t.Errorf("VmRSS: %q, %v", v, err)
	}
	if _, err := field(status, "VmRS"); err == nil {
		t.Error("a missing field was found")
	}
}

func TestWithoutAuthorizer_RemovesTheFilter(t *testing.T) {
	config, err := os.ReadFile("../envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := withoutAuthorizer(config)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bare, []byte("failure_mode_allow")) || !bytes.Contains(bare, []byte("- name: envoy.filters.http.router\n")) {
		t.Error("the wrong part was removed")
	}
	if _, err := withoutAuthorizer(bare); err == nil {
		t.Error("a filter that is not there was removed")
	}
}

// TestAnswer_JudgedBy expects of each authorizer only what it can tell.
func TestAnswer_JudgedBy(t *testing.T) {
	for _, tc := range []struct {
		judged  judgement
		resp    *authv3.CheckResponse
		correct bool
	}{
		{byReason, deny("key_revoked"), true}, {byReason, deny("key_unknown"), false}, {byReason, allow(), false},
		{byVerdict, deny("key_unknown"), true}, {byVerdict, allow(), false},
		{allAllow, allow(), true}, {allAllow, deny("key_revoked"), false},
	} {
		wire, err := proto.Marshal(tc.resp)
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		a.expect("key_revoked", tc.judged)
		if err := a.judge(wire); (err == nil) != tc.correct {
			t.Errorf("%v, judgement %d: %v", tc.resp, tc.judged, err)
		}
	}
}
