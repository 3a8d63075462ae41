#!/bin/bash
# Makes packages out of `make install`; called by `make deb` and `make wheel`, which set MAKE and VERSION.
#   scripts/package.sh deb|wheel <build folder>    the package is put into <build folder>/dist
set -eu
cd "$(dirname "$0")/.."
kind=$1 build=$2
work=$(realpath -m "$build/$kind") dist=$(realpath -m "$build/dist")
# The same commit gives the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1764547200)}

# Into a folder of $work; what a debugger wants of the library is left to the build folder. Further words: for make.
install_into()
{
    local folder=$1
    shift
    $MAKE -s install DESTDIR="$folder" "$@"
    find "$folder" -type f \( -name gems -o -name libgems_preload.so \) \
        -exec strip --strip-unneeded --remove-section=.comment '{}' +
}

make_deb()
{
    local tree=$work/tree doc=$work/tree/usr/share/doc/gems-preload architecture
    architecture=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
    # Where no other program's linker looks: the library defines PyTorch's symbols.
    install_into "$tree" B="$build" PREFIX=/usr LIBRARY=lib/gems-preload PKGCONFIG="lib/$architecture/pkgconfig"
    install -d "$doc" "$tree/DEBIAN"
    install -m 644 packaging/debian/copyright "$doc"
    gzip -9n <packaging/debian/changelog >"$doc/changelog.gz"
    gzip -9n "$tree/usr/share/man/man1/gems.1"
    cp -r packaging/debian "$work/debian" # the tools want a source folder
    (
        cd "$work"
        dpkg-shlibdeps tree/usr/bin/gems tree/usr/lib/gems-preload/libgems_preload.so
        dpkg-gencontrol -v"$VERSION" -Ptree
        cd tree
        find usr -type f -printf '%P\0' | sort -z | sed -z 's|^|usr/|' | xargs -0 md5sum >DEBIAN/md5sums
    ) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    chmod -R u=rwX,go=rX "$tree"
    dpkg-deb --root-owner-group --build "$tree" "$dist" >"$work/log"
    ls "$dist"/gems-preload_"$VERSION"_*.deb
}

rm -rf "$work"
mkdir -p "$work" "$dist"
"make_$kind"
