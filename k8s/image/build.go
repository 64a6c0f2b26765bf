package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	modulePath = "github.com/tollkeeper-authz/tollkeeper"
	command    = modulePath + "/cmd/tollkeeper"
)

// release describes the source of an image.
type release struct {
	version  string
	revision string    // the commit, "" if unknown
	created  time.Time // of the source, not of the build, so that the image is reproducible
}

// oneWord is the form of a version, which becomes a linker flag and part of package URLs.
var oneWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// describe asks git for the commit and its time. SOURCE_DATE_EPOCH overrides the time
// (https://reproducible-builds.org/specs/source-date-epoch/).
func describe(ctx context.Context, root, version string) (release, error) {
	rel := release{version: version, created: time.Unix(0, 0).UTC()}
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if err != nil { // no git, or no repository, as in an unpacked archive of the source
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	if hash, seconds, ok := strings.Cut(git("log", "-1", "--format=%H %ct"), " "); ok {
		if git("status", "--porcelain") != "" {
			hash += "-dirty"
		}
		rel.revision = hash
		if s, err := strconv.ParseInt(seconds, 10, 64); err == nil {
			rel.created = time.Unix(s, 0).UTC()
		}
	}
	if rel.version == "" {
		rel.version = git("describe", "--tags", "--always", "--dirty", "--abbrev=12") // the number of digits must not depend on the clone
	}
	if rel.version == "" {
		rel.version = "devel"
	}
	if !oneWord.MatchString(rel.version) {
		return release{}, fmt.Errorf("-version %q: want one word, such as 1.2.3", rel.version)
	}
	if epoch, set := os.LookupEnv("SOURCE_DATE_EPOCH"); set {
		s, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || s < 0 {
			return release{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970, such as 1767225600", epoch)
		}
		rel.created = time.Unix(s, 0).UTC()
	}
	return rel, nil
}

// binary is the compiled program with the modules in it.
type binary struct {
	arch    string
	data    []byte
	goVer   string // of the standard library
	modules []module
}

// module is a module with packages in the binary.
type module struct {
	path, version, sum string
	texts              map[string][]byte // licences and notices, by file name
}

// moduleRoot returns the root folder of Tollkeeper's source. The working directory has to be inside of it, and not in this
// module.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := goTool(ctx, "", nil, "list", "-m", "-f", "{{.Dir}}", modulePath)
	if err != nil {
		return "", fmt.Errorf("want to run at the top of the repository, as make image does: %w", err)
	}
	return strings.TrimSpace(out), nil
}

// compile builds the program as a static binary. The same source gives the same bytes in every folder, so the commit is in
// the labels of the image and not in the binary.
func compile(ctx context.Context, root, arch, version string) (binary, error) {
	dir, err := os.MkdirTemp("", "tollkeeper-image-")
	if err != nil {
		return binary{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "tollkeeper")
	// These variables would change the result.
	env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFLAGS=-trimpath"}
	if _, err := goTool(ctx, root, env, "build", "-buildvcs=false", "-ldflags=-s -w -X main.version="+version, "-o", path, command); err != nil {
		return binary{}, err
	}
	b := binary{arch: arch}
	if b.data, err = os.ReadFile(path); err != nil {
		return binary{}, err
	}
	info, err := buildinfo.Read(bytes.NewReader(b.data))
	if err != nil {
		return binary{}, err
	}
	b.goVer = strings.TrimPrefix(info.GoVersion, "go")
	folders, err := moduleFolders(ctx, root, env)
	if err != nil {
		return binary{}, err
	}
	for _, m := range append([]*debug.Module{&info.Main, {Path: stdlib, Version: b.goVer}}, info.Deps...) {
		texts, err := licenceTexts(folders[m.Path])
		if err != nil {
			return binary{}, err
		}
		if m.Replace != nil {
			m = m.Replace
		}
		b.modules = append(b.modules, module{path: m.Path, version: m.Version, sum: m.Sum, texts: texts})
	}
	b.modules[0].version = version
	return b, nil
}

// moduleFolders returns the folder with the source of each module in the program, and of the standard library.
func moduleFolders(ctx context.Context, root string, env []string) (map[string]string, error) {
	out, err := goTool(ctx, root, env, "list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}", command)
	if err != nil {
		return nil, err
	}
	goroot, err := goTool(ctx, root, env, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	folders := map[string]string{stdlib: strings.TrimSpace(goroot)}
	for line := range strings.Lines(out) {
		if path, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			folders[path] = dir
		}
	}
	return folders, nil
}

func goTool(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, bytes.TrimSpace(exit.Stderr))
	}
	return string(out), err
}
