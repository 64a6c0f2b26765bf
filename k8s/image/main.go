package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	name    string
	version string
	archs   string
	out     string
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "tollkeeper:dev", "name and tag of the image")
	flag.StringVar(&o.version, "version", "", "version of the program (default: what git describe says)")
	flag.StringVar(&o.archs, "arch", "amd64,arm64", "processors to build for, as Go names them")
	flag.StringVar(&o.out, "out", filepath.Join("bin", "image"), "folder to write to")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "image: unexpected argument %q: see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

// run builds the images of all platforms and writes them to o.out.
func run(ctx context.Context, o options, log io.Writer) error {
	ref, err := parseReference(o.name)
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	archs := strings.Split(o.archs, ",")
	if slices.Contains(archs, "") {
		return fmt.Errorf("-arch %q: want processors, such as amd64,arm64", o.archs)
	}
	rel, err := describe(ctx, root, o.version)
	if err != nil {
		return err
	}
	if rel.revision == "" {
		fmt.Fprintln(log, "git knows no commit here: the image will not name its source")
	}
	var images []image
	for _, arch := range archs {
		bin, err := compile(ctx, root, arch, rel.version)
		if err != nil {
			return err
		}
		img, err := assemble(bin, rel)
		if err != nil {
			return fmt.Errorf("linux/%s: %w", arch, err)
		}
		images = append(images, img)
	}
	return write(o.out, ref, images, rel, log)
}

// write puts the layout, the tars and the SBOMs into a folder.
func write(out string, ref reference, images []image, rel release, log io.Writer) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	index, err := newIndex(images, rel)
	if err != nil {
		return err
	}
	folder := filepath.Join(out, "oci")
	if err := writeLayout(folder, layout(ref, index, images)); err != nil {
		return err
	}
	fmt.Fprintf(log, "%s:%s\t%s %s\n", folder, ref.tag, rel.version, index.Digest)
	for i := range images {
		img := &images[i]
		archive, err := dockerArchive(ref, img)
		if err != nil {
			return err
		}
		file := filepath.Join(out, "tollkeeper-linux-"+img.arch+".tar")
		sbom := filepath.Join(out, "sbom-linux-"+img.arch+".cdx.json")
		if err := errors.Join(os.WriteFile(file, archive, 0o644), os.WriteFile(sbom, img.sbom, 0o644)); err != nil {
			return err
		}
		fmt.Fprintf(log, "%s\t%.1f MB\n%s\n", file, float64(len(archive))/1e6, sbom)
	}
	return nil
}
