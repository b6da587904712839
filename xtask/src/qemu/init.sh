#!/bin/busybox sh
# First process of the nested machine: makes an ordinary Linux of it, runs /command, and reports.
# Standard streams of the command are virtio ports; the serial console is for the kernel.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=linux

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm /tmp /run /root /disks
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Not every kernel has it, and few ask for it.
mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null
# As systemd has them; the machines that build this have them private.
mount --make-rshared /
ln -s /proc/self/fd /dev/fd
ip link set lo up

while read -r module; do
    # One of kvm-amd and kvm-intel always refuses: it is the other maker's processor.
    insmod "/modules/$module" 2>/dev/null || echo "not loaded: $module"
done < /modules/order

for port in /sys/class/virtio-ports/*; do
    ln -s "/dev/${port##*/}" "/dev/lab-$(cat "$port/name")"
done

# Disks come as block devices; programs get them as files of the same length.
while read -r device length path; do
    head -c "$length" "/dev/$device" > "$path"
done < /disks.list

mark=$(cat /mark)
echo ready > /dev/lab-status
cd /root
/command < /dev/lab-in > /dev/lab-out 2> /dev/lab-err
code=$?

while read -r device length path; do
    [ "$(cat "/sys/block/$device/ro")" = 1 ] || { cat "$path" > "/dev/$device"; sync; }
done < /disks.list
printf '\000%s%s\n' "$mark" "$code" > /dev/lab-err
printf '\000%s%s\n' "$mark" "$code" > /dev/lab-out

# Whoever started us ends the machine when it has read everything.
sleep 60
poweroff -f
