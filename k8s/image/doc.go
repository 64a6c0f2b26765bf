// Command image builds the container image from Tollkeeper's source and its modules alone: without a base image, and without
// a container engine. It writes an OCI image layout with one image for each platform, and for each platform a tar for docker
// and podman and the list of the modules in the binary (SBOM).
//
// The same source, version and Go toolchain give the same bytes.
//
// Read main.go first, then build.go, which compiles the binary and collects its licences, rootfs.go with the files of the
// image, and oci.go, which packs them.
package main
