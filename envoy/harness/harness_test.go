package harness

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRenderChangesPortsAndNothingElse(t *testing.T) {
	shipped, err := os.ReadFile("../envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	same, err := Render(shipped, shippedPorts)
	if err != nil || string(same) != string(shipped) {
		t.Errorf("rendering the shipped ports: %v, changed %v", err, string(same) != string(shipped))
	}
	// The listener's new port is the shipped port of the upstream: it must not be replaced again.
	out, err := Render(shipped, Ports{Listener: 8080, Admin: 2, Tollkeeper: 3, Upstream: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"port_value: 8080}", "port_value: 2}", "port_value: 3}", "port_value: 4}"} {
		if n := strings.Count(string(out), want); n != 1 {
			t.Errorf("%q stands %d times", want, n)
		}
	}
}

func TestRenderRefusesWhatItDoesNotKnow(t *testing.T) {
	shipped, err := os.ReadFile("../envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	missing := strings.Replace(string(shipped), "port_value: 9001}", "port_value: 9101}", 1)
	if _, err := Render([]byte(missing), shippedPorts); err == nil {
		t.Error("a configuration without Tollkeeper's port was rendered")
	}
	twice := string(shipped) + "\n# address: 127.0.0.1, port_value: 9901}"
	if _, err := Render([]byte(twice), shippedPorts); err == nil {
		t.Error("a configuration with two admin ports was rendered")
	}
}

func TestSupportedVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"1.40.0": true, "1.41.2": true, "2.0.0": true, "1.40.0-dev": true, "1.39.9": false, "1.4.0": false, "0.99.0": false,
	} {
		if got := supported("\n/usr/bin/envoy  version: 9e55809/" + version + "/Clean/RELEASE/BoringSSL\n"); got != want {
			t.Errorf("%s: %v, want %v", version, got, want)
		}
	}
	if supported("envoy: command failed") || supported("") {
		t.Error("an output without a version is supported")
	}
}

func TestInstallsOnceWhenManyAsk(t *testing.T) {
	final := filepath.Join(t.TempDir(), "envoy", "1.40.0")
	start := make(chan struct{})
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			<-start
			path, err := installOnce(final, func(dir string) error {
				fills.Add(1)
				return writeBinary(dir, 0o755)
			})
			if err != nil {
				t.Error(err)
			} else if err := executable(path); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	before := fills.Load()
	if _, err := installOnce(final, func(string) error { return errors.New("installed again") }); err != nil || fills.Load() != before {
		t.Errorf("a later call: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(final))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFailedInstallLeavesNothing(t *testing.T) {
	for name, fill := range map[string]func(dir string) error{
		"no network":     func(string) error { return errors.New("no network") },
		"empty package":  func(string) error { return nil },
		"not executable": func(dir string) error { return writeBinary(dir, 0o644) },
	} {
		final := filepath.Join(t.TempDir(), "envoy", "1.40.0")
		if path, err := installOnce(final, fill); err == nil {
			t.Errorf("%s: got %q", name, path)
		}
		if entries, err := os.ReadDir(filepath.Dir(final)); err != nil || len(entries) != 0 {
			t.Errorf("%s: left behind %v, %v", name, entries, err)
		}
	}
}

func writeBinary(dir string, mode os.FileMode) error {
	at := filepath.Join(dir, "envoy", "_bin")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(at, "envoy"), []byte("#!/bin/sh\n"), mode)
}

func TestEnvironmentChoosesEnvoy(t *testing.T) {
	dir := t.TempDir()
	if err := writeBinary(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "envoy", "_bin", "envoy")
	t.Setenv("ENVOY", want)
	if got, err := FindEnvoy(t.Context(), dir); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("ENVOY", filepath.Join(dir, "nothing"))
	if got, err := FindEnvoy(t.Context(), dir); err == nil {
		t.Errorf("an ENVOY that is not there: %q", got)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var log tail
	for range 5 {
		if _, err := log.Write([]byte(strings.Repeat("x", keptLog))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); len(got) > 3*keptLog || !strings.HasSuffix(got, "the end") || !strings.HasPrefix(got, "[...]") {
		t.Errorf("%d bytes kept", len(got))
	}
}

func TestStartReportsWhyItFailed(t *testing.T) {
	script := filepath.Join(t.TempDir(), "tollkeeper")
	tries := filepath.Join(t.TempDir(), "tries")
	for said, want := range map[string]int{"bind: address already in use": attempts, "the policy is broken": 1} {
		text := "#!/bin/sh\necho try >>" + tries + "\necho '" + said + "' >&2\nexit 1\n"
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := StartTollkeeper(t.Context(), TollkeeperOptions{Binary: script})
		if err == nil || want == 1 && !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
		counted, err := os.ReadFile(tries)
		if n := strings.Count(string(counted), "try"); err != nil || n != want {
			t.Errorf("%s: started %d times, want %d (%v)", said, n, want, err)
		}
		if err := os.Remove(tries); err != nil {
			t.Fatal(err)
		}
	}
}
