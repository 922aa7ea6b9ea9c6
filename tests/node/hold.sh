# The first process of a node's namespaces (network, mounts, processes): furnishes them, says `held`, and then reaps
# whatever loses its parent. When it ends, the kernel ends every process of the node, and mounts and network go too.
# Arguments: the node's folder and the folder of its programs, as seen from outside and inside.
set -euo pipefail
node=$1 programs=$2

for folder in "$node" "$programs"; do
    case $(realpath "$folder")/ in
    /run/* | /var/lib/* | /var/log/*) echo "a node hides /run, /var/lib and /var/log; $folder must lie elsewhere" >&2 && exit 1 ;;
    esac
done

# What containerd, kubelet and CNI plugins keep at their usual places, they keep in the node's folder.
mkdir -p "$node"/{lib,log,settings} "$node"/lib/{volumes,kubelet}
mount --bind "$node/lib" /var/lib
mount --bind "$node/log" /var/log
mount -t tmpfs tmpfs /run

# kubelet would set these for the whole machine; here it finds them as it wants them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$node/settings/$(basename "${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward

echo held
sleep infinity &
wait
