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

# zig's clang links with an older glibc; auditwheel checks that nothing wants a newer one, and puts Debian's libjansson
# beside ours under a name of its own (Debian's static one is not position-independent).
make_wheel()
{
    local tools python system=$build-manylinux/system tree=$work/tree info=$work/tree/gems_preload-$VERSION.dist-info
    tools=$(scripts/python --wheel --folder) python=$(scripts/python --wheel)
    export ZIG_GLOBAL_CACHE_DIR=$tools/zig ZIG_LOCAL_CACHE_DIR=$tools/zig
    local zig
    zig="'$("$python" -c 'import ziglang; print(*ziglang.__path__)')/zig'"
    # Of the system's headers and libraries these alone: beside the others would be its glibc's.
    mkdir -p "$system"
    ln -sfn /usr/include/CL /usr/include/clblast*.h /usr/include/jansson*.h "$system"
    ln -sf "$(gcc -print-file-name=libjansson.so)" "$(gcc -print-file-name=libgcc_s.so.1)" "$system"
    # Exceptions that pass our frames are unwound by the program's libgcc, not by zig's own: the one here (which wants a
    # newer glibc than the target's) is only linked with. Warnings are the business of the compiler that checks use.
    local target="-target x86_64-linux-gnu.2.28 -isystem $system"
    install_into "$tree/gems_preload" B="$build-manylinux" PREFIX= PCPREFIX='$${pcfiledir}/../..' \
        CC="$zig cc $target" CXX="$zig c++ $target" CFLAGS='-O2 -w' MARCH=-march=x86_64_ \
        LIBS="-L$system -ljansson -ldl -lpthread -lm -Wl,--allow-shlib-undefined $system/libgcc_s.so.1"
    install -d "$tree/gems_preload-$VERSION.data/data/share" "$info/licenses"
    mv "$tree/gems_preload/share/man" "$tree/gems_preload-$VERSION.data/data/share"
    install -m 644 packaging/wheel/*.py "$tree/gems_preload"
    install -m 644 packaging/wheel/{WHEEL,entry_points.txt} "$info"
    { sed "s|@VERSION@|$VERSION|" packaging/wheel/METADATA; cat README.md; } >"$info/METADATA"
    install -m 644 LICENSE "$info/licenses"
    install -m 644 /usr/share/doc/libjansson-dev/copyright "$info/licenses/jansson"
    chmod -R u=rwX,go=rX "$tree"
    {
        "$python" -m wheel pack --dest-dir "$work" "$tree"
        PATH=$(dirname "$python"):$PATH "$python" -m auditwheel repair --plat manylinux_2_28_x86_64 --only-plat \
            --wheel-dir "$dist" "$work"/*.whl
    } >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    ls "$dist"/gems_preload-"$VERSION"-*.whl
}

rm -rf "$work"
mkdir -p "$work" "$dist"
"make_$kind"
