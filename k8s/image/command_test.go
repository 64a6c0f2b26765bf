package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun_RefusesBadOptions(t *testing.T) {
	for _, c := range []struct {
		o    options
		want string
	}{
		{options{name: "tollkeeper", archs: "amd64"}, `-name "tollkeeper": want a name and a tag`},
		{options{name: "Tollkeeper:dev", archs: "amd64"}, `want a name and a tag`},
		{options{name: "tollkeeper:dev", archs: "amd64,"}, `-arch "amd64,": want processors`},
		{options{name: "tollkeeper:dev", archs: "z80"}, `z80`},
		{options{name: "tollkeeper:dev", archs: "amd64", version: "1 -X main.version=2"}, `want one word`},
	} {
		if err := run(t.Context(), c.o, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v: want %s", c.o, err, c.want)
		}
	}
}

// TestDescribe_AsksGit makes a repository of its own.
func TestDescribe_AsksGit(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE=1767225600 +0900", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	source := func(version string) release {
		t.Helper()
		rel, err := describe(t.Context(), dir, version)
		if err != nil {
			t.Fatal(err)
		}
		return rel
	}
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(dir))
	if got, want := source(""), (release{version: "devel", created: time.Unix(0, 0).UTC()}); got != want {
		t.Errorf("no repository: %+v: want %+v", got, want)
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message", "first")
	commit := git("rev-parse", "HEAD")
	if got, want := source(""), (release{commit[:12], commit, time.Unix(epoch, 0).UTC()}); got != want {
		t.Errorf("a commit: %+v: want %+v", got, want)
	}
	git("tag", "v1.0.0")
	if got, want := source(""), (release{"v1.0.0", commit, time.Unix(epoch, 0).UTC()}); got != want {
		t.Errorf("a tag: %+v: want %+v", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := source("1.1.0"), (release{"1.1.0", commit + "-dirty", time.Unix(epoch, 0).UTC()}); got != want {
		t.Errorf("a changed tree: %+v: want %+v", got, want)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	if got := source("").created; !got.Equal(time.Unix(86400, 0)) {
		t.Errorf("SOURCE_DATE_EPOCH=86400: created %v", got)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := describe(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH="yesterday"`) {
		t.Errorf("SOURCE_DATE_EPOCH=yesterday: %v", err)
	}
}

func TestReference_FullName(t *testing.T) {
	for name, want := range map[string]string{
		"tollkeeper:dev":                         "docker.io/library/tollkeeper:dev",
		"team/tollkeeper:dev":                    "docker.io/team/tollkeeper:dev",
		"localhost/tollkeeper:dev":               "localhost/tollkeeper:dev",
		"localhost:5000/tollkeeper:dev":          "localhost:5000/tollkeeper:dev",
		"ghcr.io/tollkeeper/tollkeeper:1.2_3-rc": "ghcr.io/tollkeeper/tollkeeper:1.2_3-rc",
	} {
		ref, err := parseReference(name)
		if err != nil || ref.full() != want {
			t.Errorf("%s: %s, %v: want %s", name, ref.full(), err, want)
		}
	}
}

// TestWriteLayout_ReplacesOnlyLayouts protects the folder of a mistyped -out.
func TestWriteLayout_ReplacesOnlyLayouts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "oci")
	old := []file{{name: "oci-layout", data: []byte("{}")}, {name: "stale", data: []byte("x")}}
	if err := writeLayout(dir, old); err != nil {
		t.Fatal(err)
	}
	if err := writeLayout(dir, old[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "stale")); err == nil {
		t.Error("a file of the older layout is left")
	}
	if err := os.Rename(filepath.Join(dir, "oci-layout"), filepath.Join(dir, "letters")); err != nil {
		t.Fatal(err)
	}
	if err := writeLayout(dir, old); err == nil || !strings.Contains(err.Error(), "not an image layout") {
		t.Errorf("another folder: %v, want it refused", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "letters")); err != nil {
		t.Error("the folder was emptied")
	}
}
